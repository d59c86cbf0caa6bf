"""Records what transformers computes, under npgemma's names and in npgemma's axes.

It can also put stored tensors in the place of computed ones as it goes, so that each operation starts from the stored
input: whole traces in bfloat16 from two machines can only be compared so, because one other rounding runs through all.
"""

import contextlib

import torch
from golden_precision import (
    ATTENTION_MODULES,
    HeadInFloat32,
    capped_scores,
    load,
    mixed_values,
    patched,
    probabilities,
    replace_everywhere,
    scaled_scores,
)

TEXT_NORMS = {
    # transformers uses one name, `post_attention_layernorm`, for two places.
    "gemma": {"input_layernorm": "attn_norm", "post_attention_layernorm": "mlp_norm"},
    "gemma2": {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "attn_post_norm",
        "pre_feedforward_layernorm": "mlp_norm",
        "post_feedforward_layernorm": "mlp_post_norm",
    },
}


class Recorder:
    """Tensors by name, in the order in which they were computed.

    Parameters
    ----------
    model : PaliGemmaForConditionalGeneration
    precision : str
    stored : dict of torch.Tensor
        Tensors that go on in place of the computed ones; empty for a plain recording.
    """

    def __init__(self, model, precision, stored):
        self.model = model
        self.inside = torch.float32 if precision == "bf16-f32-inside" else None
        self.stored = stored
        self.tensors = {}
        self.attention_names = {}
        self.rotated_key = None

    def keep(self, name, tensor):
        """Record ``tensor``; gives what goes on in its place."""
        if name in self.tensors:
            raise RuntimeError(f"{name} was computed twice in one forward pass")
        self.tensors[name] = tensor.detach().clone().contiguous()
        return self.stored.get(name, tensor)

    def output_of(self, module, name, ours=lambda out: out, theirs=lambda kept, out: kept.reshape(out.shape)):
        """Keep the output of ``module`` under ``name``; ``ours`` and ``theirs`` go to npgemma's axes and back."""
        return module.register_forward_hook(lambda _m, _args, out: theirs(self.keep(name, ours(out)), out))

    def input_of(self, module, name):
        """Keep the first positional input of ``module`` under ``name``."""
        return module.register_forward_pre_hook(lambda _m, args: (self.keep(name, args[0]), *args[1:]))

    def attach(self):
        """Hook every module; returns the handles."""
        config, inner = self.model.config, self.model.model
        vision, text = inner.vision_tower, inner.language_model
        handles = [
            self.output_of(
                vision.embeddings.patch_embedding,
                "vision.patches",
                ours=lambda out: out.flatten(2).transpose(1, 2),
                theirs=lambda kept, out: kept.transpose(1, 2).reshape(out.shape),
            ),
            self.output_of(vision.embeddings, "vision.embedded"),
            self.output_of(vision.post_layernorm, "vision.norm"),
            self.output_of(inner.multi_modal_projector, "connector.out"),
            self.output_of(text.embed_tokens, "text.embedded"),
            text.register_forward_pre_hook(self.keep_decoder_inputs, with_kwargs=True),
            text.rotary_emb.register_forward_hook(self.keep_angles),
            self.output_of(text.norm, "text.norm"),
        ]
        for number, layer in enumerate(vision.encoder.layers):
            handles += self.attach_vision_block(layer, f"vision.blocks.{number}.", config.vision_config)
        for number, layer in enumerate(text.layers):
            handles += self.attach_text_block(layer, f"text.blocks.{number}.", config.text_config)
        return handles

    def attach_vision_block(self, layer, prefix, config):
        heads = (config.num_attention_heads, config.hidden_size // config.num_attention_heads)
        self.attention_names[layer.self_attn] = prefix + "attn."
        handles = [
            self.output_of(layer.layer_norm1, prefix + "attn_norm"),
            self.output_of(layer.self_attn.out_proj, prefix + "attn.out"),
            self.input_of(layer.self_attn.out_proj, prefix + "attn.mixed"),
            self.input_of(layer.layer_norm2, prefix + "middle"),
            self.output_of(layer.layer_norm2, prefix + "mlp_norm"),
            self.output_of(layer.mlp.fc1, prefix + "mlp.up"),
            self.output_of(layer.mlp.activation_fn, prefix + "mlp.hidden"),
            self.output_of(layer.mlp.fc2, prefix + "mlp.out"),
            self.output_of(layer, prefix + "out"),
        ]
        for letter in "qkv":
            projection = getattr(layer.self_attn, letter + "_proj")
            handles.append(
                self.output_of(projection, prefix + "attn." + letter, lambda out: out.unflatten(-1, heads))
            )
        return handles

    def attach_text_block(self, layer, prefix, config):
        self.attention_names[layer.self_attn] = prefix + "attn."
        mlp_norm = layer.post_attention_layernorm if config.model_type == "gemma" else layer.pre_feedforward_layernorm
        handles = [
            self.output_of(layer.self_attn.o_proj, prefix + "attn.out"),
            self.input_of(layer.self_attn.o_proj, prefix + "attn.mixed"),
            self.input_of(mlp_norm, prefix + "middle"),
            self.output_of(layer.mlp.gate_proj, prefix + "mlp.gate"),
            self.output_of(layer.mlp.act_fn, prefix + "mlp.opened"),
            self.output_of(layer.mlp.up_proj, prefix + "mlp.up"),
            self.input_of(layer.mlp.down_proj, prefix + "mlp.hidden"),
            self.output_of(layer.mlp.down_proj, prefix + "mlp.out"),
            self.output_of(layer, prefix + "out"),
        ]
        for theirs, ours in TEXT_NORMS[config.model_type].items():
            handles.append(self.output_of(getattr(layer, theirs), prefix + ours))
        for letter in "qkv":
            projection = getattr(layer.self_attn, letter + "_proj")
            handles.append(
                self.output_of(
                    projection, prefix + "attn." + letter, lambda out: out.unflatten(-1, (-1, config.head_dim))
                )
            )
        return handles

    def keep_decoder_inputs(self, _module, args, kwargs):
        masks = kwargs["attention_mask"]
        if not isinstance(masks, dict):
            masks = {"full_attention": masks}
        # The additive mask is 0 where a query may look and the lowest finite number elsewhere.
        for kind, mask in masks.items():
            self.keep("mask." + kind.removesuffix("_attention"), mask[:, 0] == 0)
        return args, kwargs | {"inputs_embeds": self.keep("text.spliced", kwargs["inputs_embeds"])}

    def keep_angles(self, _module, _args, out):
        half = out[0].shape[-1] // 2
        tables = [
            self.keep(name, table[..., :half]) for name, table in zip(("text.cos", "text.sin"), out, strict=True)
        ]
        return tuple(torch.cat((table, table), dim=-1) for table in tables)

    def recording_rotation(self, original):
        """``original`` rotation, whose key is set aside until the attention says which block it belongs to."""

        def rotate(q, k, cos, sin, **kwargs):
            rotated = original(q, k, cos, sin, **kwargs)
            self.rotated_key = rotated[1]
            return rotated

        return rotate

    def recording_attention(self, original):
        """``original`` attention, with its inner steps recomputed, kept, and checked against its own result."""

        def attend(module, query, key, value, attention_mask, scaling=None, softcap=None, **kwargs):
            prefix = self.attention_names[module]
            if prefix.startswith("text."):
                query, key = self.keep_rotated(prefix, query, key)
            # Query head n reads key/value head n // G, hence (K, G) and not (G, K).
            heads = (key.shape[1], -1)
            scores = scaled_scores(query, key, scaling, self.inside)
            scores = self.keep(prefix + "scores", scores.unflatten(1, heads)).flatten(1, 2)
            capped = capped_scores(scores, softcap, self.inside)
            if softcap is not None:
                capped = self.keep(prefix + "capped", capped.unflatten(1, heads)).flatten(1, 2)
            probs = probabilities(capped, attention_mask)
            probs = self.keep(prefix + "probs", probs.unflatten(1, heads)).flatten(1, 2)
            mixed = mixed_values(probs, value)
            if not self.stored:
                theirs = original(
                    module, query, key, value, attention_mask, scaling=scaling, softcap=softcap, **kwargs
                )
                if not (torch.equal(theirs[0], mixed) and torch.equal(theirs[1], probs)):
                    raise RuntimeError(f"{prefix}: the recorded steps do not lead to transformers' own result")
            return mixed, probs

        return attend

    def keep_rotated(self, prefix, query, key):
        """Keep query and key behind the rotation; the cache may have put older keys before this call's."""
        query = self.keep(prefix + "q_rot", query.transpose(1, 2)).transpose(1, 2)
        newest = self.keep(prefix + "k_rot", self.rotated_key.transpose(1, 2)).transpose(1, 2)
        older = key[:, :, : key.shape[2] - newest.shape[2]]
        return query, torch.cat((older, newest), dim=2)


@contextlib.contextmanager
def recording(model, precision, stored=None):
    """While this is open, one forward pass of ``model`` is recorded; gives the :class:`Recorder`."""
    recorder = Recorder(model, precision, stored or {})
    with contextlib.ExitStack() as stack:
        stack.enter_context(patched(precision))
        for module in ATTENTION_MODULES:
            replace_everywhere(
                stack, [module], "eager_attention_forward", recorder.recording_attention(module.eager_attention_forward)
            )
        for module in ATTENTION_MODULES[1:]:
            replace_everywhere(
                stack, [module], "apply_rotary_pos_emb", recorder.recording_rotation(module.apply_rotary_pos_emb)
            )
        for handle in recorder.attach():
            stack.callback(handle.remove)
        yield recorder


def run(folder, batch, precision, stored=None):
    """Every named tensor of one forward pass of the model in ``folder``.

    Parameters
    ----------
    folder : path
    batch : dict
        ``ids token_types attention_mask positions``, all (B, T), and ``pixels`` (I, R, R, 3) or None.
    precision : str
    stored : dict of torch.Tensor, optional
        Tensors that go on in place of the computed ones (which are recorded nonetheless).

    Returns
    -------
    tensors : dict of torch.Tensor
    """
    model = load(folder, precision)
    if precision == "bf16-f32-inside":
        model.lm_head = HeadInFloat32(model.lm_head)
    pixels = batch["pixels"]
    with torch.no_grad(), recording(model, precision, stored) as recorder:
        logits = model(**arguments(batch, model.dtype), use_cache=False).logits
    tensors = {} if pixels is None else {"pixels": torch.from_numpy(pixels).to(model.dtype)}
    tensors |= recorder.tensors
    tensors["text.logits"] = logits.to(model.dtype)
    return tensors


def arguments(batch, dtype):
    """Keyword arguments of transformers' forward; mask, token types and positions are always given."""
    given = {
        "input_ids": torch.from_numpy(batch["ids"]),
        "attention_mask": torch.from_numpy(batch["attention_mask"]),
        # Explicit positions without a mask would make transformers pack sequences at gaps.
        "position_ids": torch.from_numpy(batch["positions"]),
        "token_type_ids": torch.from_numpy(batch["token_types"]),
    }
    if batch["pixels"] is not None:
        given["pixel_values"] = torch.from_numpy(batch["pixels"]).to(dtype).permute(0, 3, 1, 2)
    return given
