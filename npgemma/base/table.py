"""The table of the model: each weight and each tensor of a run stands here once, with all that is known of it.

An *expression* is Python over names: tensors and weights (looked for from the row's own place outwards, so that ``q``
in the row ``text.blocks.3.attn.q_rot`` is ``text.blocks.3.attn.q``), numbers of the configuration and sizes by their
letter, equations of ``ops``, ``rotary`` and ``masks``, and these:

    x             what a block reads: the block before, or what enters the tower
    earlier(k)    the calls before and this one, one after the other
    inner(y)      rounded where eager PyTorch materialises a step inside an equation; nothing in float32 and float64
    number(s)     a constant as the precision stores it
    a if c else b chosen by the configuration, or by the call
    @, .mT        matrix product; the last two axes exchanged
    scored        the positions whose logits are wanted
    cos, sin      NumPy's, where they are called
    dtype         the precision's
    window        of this block, or None; pictures, last_only: of the call

A test evaluates every row on the tensors of a run.  :mod:`npgemma.base.expressions` reads expressions,
:mod:`npgemma.base.tensors` gives sizes, :mod:`npgemma.base.elsewhere` other programs' names.

Letters of an axis: B batch, I pictures of all rows, R image side in pixels, P patches, T positions of this call, S
positions so far, C vision width, D text width, N query heads, K key/value heads, G query heads a key/value head, H
head size, F MLP width, V vocabulary rows.  ``{n}`` is a block's number.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Weight:
    """A matrix or a vector of the model, with the bias that may stand beside it.

    Parameters
    ----------
    name : str
        Without ``.weight``: the tensor of this name, if there is one, is made with it.
    letters : str
        Its axes.
    meaning : str
    torch : str
        PyTorch's module, below the layout's part.
    big_vision : str
        Array of the checkpoint, of its last axes; matrices are transposed there.
    gguf, gemma_cpp : str
        Without ``.weight`` and ``.bias``.
    bias : bool
    matrix : bool
        Whether vectors are multiplied with it, so that it may stay in 16 bits as stored.
    needs : str
        The field of the text configuration without which there is none.
    """

    name: str
    letters: str
    meaning: str
    torch: str
    big_vision: str
    gguf: str
    gemma_cpp: str
    bias: bool = False
    matrix: bool = False
    needs: str = ""


@dataclass(frozen=True)
class Row:
    """A tensor of a run.

    Parameters
    ----------
    name, axes : str
    expression : str
        How it is made; empty for what is given.
    kept_in : str
        The function of npgemma whose line keeps it.
    torch : str
        Where PyTorch has it: ``part module: which``, for tensors that are no output of a module with weights.
    big_vision : str
        Its module there, likewise.
    graph : str
        Names in llama.cpp's graph, ``Qcur-{n}``.
    needs : str
        The field of the text configuration without which it is not computed.
    meaning : str
        Of what is given, or of a name that other programs mean otherwise.
    """

    name: str
    axes: str
    expression: str
    kept_in: str
    torch: str = ""
    big_vision: str = ""
    graph: str = ""
    needs: str = ""
    meaning: str = ""


# What a word stands for.
WORDS = {"scored": "last_real(norm, attention_mask) if last_only else norm"}

ENCODER = "img/Transformer/encoderblock/"
HEADS = ENCODER + "MultiHeadDotProductAttention_0"
MLP = ENCODER + "MlpBlock_0/"

WEIGHTS = (
    Weight("vision.patches", "C 3RR/P", "patch embedding: channel, row, column of a patch",
           "embeddings.patch_embedding", "img/embedding/kernel", "v.patch_embd", "img_emb_kernel",
           bias=True, matrix=True),
    Weight("vision.positions", "P C", "learned position of each patch, row by row",
           "embeddings.position_embedding", "img/pos_embedding[0]", "v.position_embd", "img_pos_emb"),
    Weight("vision.blocks.{n}.attn_norm", "C", "LayerNorm before attention",
           "encoder.layers.{n}.layer_norm1", ENCODER + "LayerNorm_0/scale[{n}]", "v.blk.{n}.ln1", "ln_0_scale_{n}",
           bias=True),
    Weight("vision.blocks.{n}.attn.q", "C C", "queries",
           "encoder.layers.{n}.self_attn.q_proj", HEADS + "/query/kernel[{n}]", "v.blk.{n}.attn_q", "qkv_ein_w_{n}",
           bias=True, matrix=True),
    Weight("vision.blocks.{n}.attn.k", "C C", "keys",
           "encoder.layers.{n}.self_attn.k_proj", HEADS + "/key/kernel[{n}]", "v.blk.{n}.attn_k", "qkv_ein_w_{n}",
           bias=True, matrix=True),
    Weight("vision.blocks.{n}.attn.v", "C C", "values",
           "encoder.layers.{n}.self_attn.v_proj", HEADS + "/value/kernel[{n}]", "v.blk.{n}.attn_v", "qkv_ein_w_{n}",
           bias=True, matrix=True),
    Weight("vision.blocks.{n}.attn.out", "C C", "heads mixed back",
           "encoder.layers.{n}.self_attn.out_proj", HEADS + "/out/kernel[{n}]", "v.blk.{n}.attn_out", "attn_out_w_{n}",
           bias=True, matrix=True),
    Weight("vision.blocks.{n}.mlp_norm", "C", "LayerNorm before the MLP",
           "encoder.layers.{n}.layer_norm2", ENCODER + "LayerNorm_1/scale[{n}]", "v.blk.{n}.ln2", "ln_1_scale_{n}",
           bias=True),
    Weight("vision.blocks.{n}.mlp.up", "F C", "into the MLP",
           "encoder.layers.{n}.mlp.fc1", MLP + "Dense_0/kernel[{n}]", "v.blk.{n}.ffn_up", "linear_0_w_{n}",
           bias=True, matrix=True),
    Weight("vision.blocks.{n}.mlp.out", "C F", "out of the MLP",
           "encoder.layers.{n}.mlp.fc2", MLP + "Dense_1/kernel[{n}]", "v.blk.{n}.ffn_down", "linear_1_w_{n}",
           bias=True, matrix=True),
    Weight("vision.norm", "C", "final LayerNorm",
           "post_layernorm", "img/Transformer/encoder_norm/scale", "v.post_ln", "enc_norm_scale", bias=True),
    Weight("connector.out", "D C", "from vision width to text width",
           "linear", "img/head/kernel", "mm.input_projection", "img_head_kernel", bias=True, matrix=True),
    Weight("text.embedded", "V D", "a row a token; also the output head",
           "embed_tokens", "llm/embedder/input_embedding", "token_embd", "c_embedding", matrix=True),
    Weight("text.blocks.{n}.attn_norm", "D", "RMSNorm before attention, an offset from one",
           "layers.{n}.input_layernorm", "llm/layers/pre_attention_norm/scale[{n}]", "blk.{n}.attn_norm",
           "pre_att_ns_{n}"),
    Weight("text.blocks.{n}.attn.q", "NH D", "queries",
           "layers.{n}.self_attn.q_proj", "llm/layers/attn/q_einsum/w[{n}]", "blk.{n}.attn_q", "qkv_ein_{n}",
           matrix=True),
    Weight("text.blocks.{n}.attn.k", "KH D", "keys",
           "layers.{n}.self_attn.k_proj", "llm/layers/attn/kv_einsum/w[{n},0]", "blk.{n}.attn_k", "qkv_ein_{n}",
           matrix=True),
    Weight("text.blocks.{n}.attn.v", "KH D", "values",
           "layers.{n}.self_attn.v_proj", "llm/layers/attn/kv_einsum/w[{n},1]", "blk.{n}.attn_v", "qkv_ein_{n}",
           matrix=True),
    Weight("text.blocks.{n}.attn.out", "D NH", "heads mixed back",
           "layers.{n}.self_attn.o_proj", "llm/layers/attn/attn_vec_einsum/w[{n}]", "blk.{n}.attn_output",
           "att_ein_{n}", matrix=True),
    Weight("text.blocks.{n}.attn_post_norm", "D", "RMSNorm after attention (Gemma 2), an offset from one",
           "layers.{n}.post_attention_layernorm", "llm/layers/post_attention_norm/scale[{n}]",
           "blk.{n}.post_attention_norm", "post_att_ns_{n}", needs="post_norms"),
    Weight("text.blocks.{n}.mlp_norm", "D", "RMSNorm before the MLP, an offset from one",
           "layers.{n}.{norm_before_mlp}", "llm/layers/pre_ffw_norm/scale[{n}]", "blk.{n}.ffn_norm", "pre_ff_ns_{n}"),
    Weight("text.blocks.{n}.mlp.gate", "F D", "into the MLP, opened by GELU",
           "layers.{n}.mlp.gate_proj", "llm/layers/mlp/gating_einsum[{n},0]", "blk.{n}.ffn_gate", "gating_ein_{n}",
           matrix=True),
    Weight("text.blocks.{n}.mlp.up", "F D", "into the MLP, gated",
           "layers.{n}.mlp.up_proj", "llm/layers/mlp/gating_einsum[{n},1]", "blk.{n}.ffn_up", "gating_ein_{n}",
           matrix=True),
    Weight("text.blocks.{n}.mlp.out", "D F", "out of the MLP",
           "layers.{n}.mlp.down_proj", "llm/layers/mlp/linear[{n}]", "blk.{n}.ffn_down", "linear_w_{n}", matrix=True),
    Weight("text.blocks.{n}.mlp_post_norm", "D", "RMSNorm after the MLP (Gemma 2), an offset from one",
           "layers.{n}.post_feedforward_layernorm", "llm/layers/post_ffw_norm/scale[{n}]", "blk.{n}.post_ffw_norm",
           "post_ff_ns_{n}", needs="post_norms"),
    Weight("text.norm", "D", "final RMSNorm, an offset from one",
           "norm", "llm/final_norm/scale", "output_norm", "c_final_norm"),
)

MASK_INPUT = "text layers.0: input attention_mask: 0 where True, else the lowest float"
VISION_ATTENTION, TEXT_ATTENTION = "vision encoder.layers.{n}.self_attn", "text layers.{n}.self_attn"

ROWS = (
    # The vision tower, once a picture.
    Row("pixels", "I R R 3", "", "paligemma.see", "model : input pixel_values, channels first", "image",
        "inp_raw", meaning="the pictures, uint8 / 127.5 - 1"),
    Row("vision.patches", "I P C", "linear(patchify(pixels, patch_size), patches.weight, patches.bias)",
        "vision.encode"),
    Row("vision.embedded", "I P C", "patches + positions.weight", "vision.encode",
        "vision embeddings: output", "img", "pos_embed"),
    Row("vision.blocks.{n}.attn_norm", "I P C", "layer_norm(x, attn_norm.weight, attn_norm.bias, norm_eps)",
        "vision.block", graph="layer_inp_normed-{n}"),
    Row("vision.blocks.{n}.attn.q", "I P N H", "split_heads(linear(attn_norm, q.weight, q.bias), N)",
        "attention.vision_attention"),
    Row("vision.blocks.{n}.attn.k", "I P N H", "split_heads(linear(attn_norm, k.weight, k.bias), N)",
        "attention.vision_attention"),
    Row("vision.blocks.{n}.attn.v", "I P N H", "split_heads(linear(attn_norm, v.weight, v.bias), N)",
        "attention.vision_attention"),
    Row("vision.blocks.{n}.attn.scores", "I N 1 P P",
        "inner(group_heads(q, N) @ group_heads(k, N).mT) * query_scale", "attention.attend",
        VISION_ATTENTION + ": inside: query @ key^T * scale", HEADS + "[{n}]"),
    Row("vision.blocks.{n}.attn.probs", "I N 1 P P", "softmax(scores)", "attention.attend",
        VISION_ATTENTION + ": second output, with eager attention", HEADS + "[{n}]"),
    Row("vision.blocks.{n}.attn.mixed", "I P C", "merge_heads(probs @ group_heads(v, N))", "attention.attend",
        VISION_ATTENTION + ".out_proj: input", HEADS + "/out[{n}]"),
    Row("vision.blocks.{n}.attn.out", "I P C", "linear(mixed, out.weight, out.bias)", "attention.vision_attention",
        graph="attn_out-{n}"),
    Row("vision.blocks.{n}.middle", "I P C", "x + attn.out", "vision.block",
        "vision encoder.layers.{n}.layer_norm2: input", ENCODER + "LayerNorm_1[{n}]", "ffn_inp-{n}"),
    Row("vision.blocks.{n}.mlp_norm", "I P C", "layer_norm(middle, mlp_norm.weight, mlp_norm.bias, norm_eps)",
        "vision.block", graph="ffn_inp_normed-{n}"),
    Row("vision.blocks.{n}.mlp.up", "I P F", "linear(mlp_norm, up.weight, up.bias)", "vision.mlp"),
    Row("vision.blocks.{n}.mlp.hidden", "I P F", "gelu(up)", "vision.mlp",
        "vision encoder.layers.{n}.mlp.activation_fn: output", MLP + "Dense_1[{n}]"),
    Row("vision.blocks.{n}.mlp.out", "I P C", "linear(hidden, out.weight, out.bias)", "vision.mlp"),
    Row("vision.blocks.{n}.out", "I P C", "middle + mlp.out", "vision.block",
        "vision encoder.layers.{n}: output", ENCODER.rstrip("/") + "[{n}]", "layer_out-{n}"),
    Row("vision.norm", "I P C", "layer_norm(x, norm.weight, norm.bias, norm_eps)", "vision.encode"),
    Row("connector.out", "I P D", "linear(vision.norm, out.weight, out.bias)", "paligemma.connect"),

    # What a call is given, and who may look at whom.
    Row("ids", "B T", "", "paligemma.given", "model : input input_ids", "text, behind the image", "inp_tokens",
        meaning="token ids, image tokens in place"),
    Row("token_types", "B T", "", "paligemma.given", "model : input token_type_ids", "mask_ar",
        meaning="0 in the bidirectional prefix, 1 in the causal suffix"),
    Row("attention_mask", "B T", "", "paligemma.given", "model : input attention_mask", "input_mask",
        meaning="1 for real tokens, 0 for padding"),
    Row("positions", "B T", "", "paligemma.given", "text : input position_ids", "llm", "inp_pos",
        meaning="from first_position (1) on"),
    Row("text.embedded", "B T D", "embed(ids, embedded.weight) * number(embed_scale)", "text.embed",
        meaning="to transformers 5.2.0 without the factor sqrt(D)", graph="inp_scaled"),
    Row("text.spliced", "B T D",
        "splice(embedded, connector.out, image_places(ids, token_types, image_token_id)) if pictures else embedded",
        "paligemma.splice", "text : input inputs_embeds; to 5.2.0 still without the factor sqrt(D)", "llm"),
    Row("mask.full", "B T S", "prefix_lm(earlier(token_types), earlier(attention_mask), T)", "paligemma.both_masks",
        MASK_INPUT, "llm", "KQ_mask"),
    Row("mask.sliding", "B T S",
        "sliding_prefix_lm(earlier(token_types), earlier(attention_mask), T, sliding_window)", "paligemma.both_masks",
        MASK_INPUT + ", of a sliding block", "llm", "KQ_mask_swa", needs="sliding_window"),

    # The decoder.
    Row("text.cos", "B T H/2", "inner(cos(angles(positions, H, rope_theta, dtype)))", "text.decode",
        "text rotary_emb: first output, which holds each value twice", "llm/layers/attn"),
    Row("text.sin", "B T H/2", "inner(sin(angles(positions, H, rope_theta, dtype)))", "text.decode",
        "text rotary_emb: second output, which holds each value twice", "llm/layers/attn"),
    Row("text.blocks.{n}.attn_norm", "B T D", "rms_norm(x, attn_norm.weight, norm_eps)", "text.block",
        graph="attn_norm-{n}"),
    Row("text.blocks.{n}.attn.q", "B T N H", "split_heads(linear(attn_norm, q.weight), N)", "attention.attention",
        graph="Qcur-{n}", meaning="llama.cpp gives the rotated tensor the same name, behind this one"),
    Row("text.blocks.{n}.attn.k", "B T K H", "split_heads(linear(attn_norm, k.weight), K)", "attention.attention",
        graph="Kcur-{n}", meaning="llama.cpp gives the rotated tensor the same name, behind this one"),
    Row("text.blocks.{n}.attn.v", "B T K H", "split_heads(linear(attn_norm, v.weight), K)", "attention.attention",
        graph="Vcur-{n}"),
    Row("text.blocks.{n}.attn.q_rot", "B T N H", "rotate(q, cos, sin, inner)", "attention.attention",
        TEXT_ATTENTION + ": inside: apply_rotary_pos_emb, first result", "llm/layers/attn[{n}]", "Qcur-{n}"),
    Row("text.blocks.{n}.attn.k_rot", "B T K H", "rotate(k, cos, sin, inner)", "attention.attention",
        TEXT_ATTENTION + ": inside: apply_rotary_pos_emb, second result", "llm/layers/attn[{n}]", "Kcur-{n}"),
    Row("text.blocks.{n}.attn.scores", "B K G T S",
        "inner(group_heads(q_rot, K) @ group_heads(earlier(k_rot), K).mT) * query_scale", "attention.attend",
        TEXT_ATTENTION + ": inside: query @ key^T * scaling", "llm/layers/attn[{n}]", "kq-{n}"),
    Row("text.blocks.{n}.attn.capped", "B K G T S", "soft_cap(scores, attn_softcap, inner)", "attention.attend",
        TEXT_ATTENTION + ": inside: scores after attn_logit_softcapping", "llm/layers/attn[{n}]", "kq_scaled-{n}",
        needs="attn_softcap"),
    Row("text.blocks.{n}.attn.probs", "B K G T S",
        "softmax(hide(capped if attn_softcap else scores, mask.sliding if window else mask.full))",
        "attention.attend", TEXT_ATTENTION + ": second output, with eager attention", "llm/layers/attn[{n}]",
        "kq_soft_max-{n}"),
    Row("text.blocks.{n}.attn.mixed", "B T NH", "merge_heads(probs @ group_heads(earlier(v), K))", "attention.attend",
        TEXT_ATTENTION + ".o_proj: input", "llm/layers/attn/attn_vec_einsum[{n}]", "kqv_out-{n}"),
    Row("text.blocks.{n}.attn.out", "B T D", "linear(mixed, out.weight)", "attention.attention"),
    Row("text.blocks.{n}.attn_post_norm", "B T D", "rms_norm(attn.out, attn_post_norm.weight, norm_eps)",
        "text.block", graph="attn_post_norm-{n}", needs="post_norms"),
    Row("text.blocks.{n}.middle", "B T D", "x + (attn_post_norm if post_norms else attn.out)", "text.block",
        "text layers.{n}.{norm_before_mlp}: input", "llm/layers/pre_ffw_norm[{n}]", "sa_out-{n}"),
    Row("text.blocks.{n}.mlp_norm", "B T D", "rms_norm(middle, mlp_norm.weight, norm_eps)", "text.block",
        graph="ffn_norm-{n}"),
    Row("text.blocks.{n}.mlp.gate", "B T F", "linear(mlp_norm, gate.weight)", "text.mlp", graph="ffn_gate-{n}"),
    Row("text.blocks.{n}.mlp.opened", "B T F", "gelu(gate)", "text.mlp",
        "text layers.{n}.mlp.act_fn: output", "llm/layers/mlp[{n}]", "ffn_gelu-{n}"),
    Row("text.blocks.{n}.mlp.up", "B T F", "linear(mlp_norm, up.weight)", "text.mlp", graph="ffn_up-{n}"),
    Row("text.blocks.{n}.mlp.hidden", "B T F", "opened * up", "text.mlp",
        "text layers.{n}.mlp.down_proj: input", "llm/layers/mlp[{n}]", "ffn_gate_par-{n}"),
    Row("text.blocks.{n}.mlp.out", "B T D", "linear(hidden, out.weight)", "text.mlp", graph="ffn_out-{n}"),
    Row("text.blocks.{n}.mlp_post_norm", "B T D", "rms_norm(mlp.out, mlp_post_norm.weight, norm_eps)", "text.block",
        graph="ffn_post_norm-{n}", needs="post_norms"),
    Row("text.blocks.{n}.out", "B T D", "middle + (mlp_post_norm if post_norms else mlp.out)", "text.block",
        "text layers.{n}: output", "llm/layers[{n}]", "l_out-{n}"),
    Row("text.norm", "B T D", "rms_norm(x, norm.weight, norm_eps)", "text.decode", graph="result_norm"),
    Row("text.logits", "B T V",
        "soft_cap(inner(linear(scored, embedded.weight)), final_softcap, inner) if final_softcap"
        " else linear(scored, embedded.weight)",
        "text.logits", "head : output", "llm/embedder", "result_output"),
)
