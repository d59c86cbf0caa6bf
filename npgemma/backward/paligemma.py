"""PaliGemma backwards.  Mirror of ``npgemma/paligemma.py``, with its letters.

A suffix is read in one piece with its prompt here (teacher forcing), so there is no :func:`step` to undo.
"""

from npgemma import masks
from npgemma.backward import ops, text, vision
from npgemma.backward.weighted import affine


def see(d_soft, t, cfg):
    """Send the gradient of soft tokens back to the pictures.

    Parameters
    ----------
    d_soft : (I, P, D)
    t : Tape
    cfg : Config

    Returns
    -------
    d_pixels : (I, R, R, 3)
    """
    d_patches = connect(d_soft, t["vision.norm"], t.at("connector"))
    d_pixels = vision.encode(d_patches, t["pixels"], t.at("vision"), cfg.vision)
    return t.keep("pixels", d_pixels)


def connect(d_out, patches, t):
    """Bring gradients back to the vision tower's width.

    Parameters
    ----------
    d_out : (I, P, D)
    patches : (I, P, C)
    t : Tape
        At ``connector``.

    Returns
    -------
    d_patches : (I, P, C)
    """
    return affine(t.keep("out", d_out), patches, t, "out")


def prefill(d_logits, t, cfg, soft):
    """Send the gradient of all scores back to the soft tokens, and to the table.

    Parameters
    ----------
    d_logits : (B, T, V)
    t : Tape
    cfg : Config
    soft : (I, P, D) or None

    Returns
    -------
    d_soft : (I, P, D) or None
    """
    return read(head(d_logits, t["text.norm"], t, cfg), t, cfg, soft)


def head(d_logits, norm, t, cfg):
    """Send the gradient of all positions' scores back to the decoder's result: d_logits (B, T, V), norm (B, T, D)."""
    return text.logits(d_logits, norm, t.at("text"), cfg.text)


def read(d_norm, t, cfg, soft):
    """Send the gradient of the decoder's result back to the soft tokens, and to the table.

    Parameters
    ----------
    d_norm : (B, T, D)
    t : Tape
        Reads ``token_types``: an image token in a suffix is an ordinary id.
    cfg : Config
    soft : (I, P, D) or None

    Returns
    -------
    d_soft : (I, P, D) or None
    """
    ids = t["ids"]
    d_spliced = text.decode(d_norm, t["text.spliced"], t.at("text"), cfg.text)
    places = masks.image_places(ids, t["token_types"], cfg.image_token_id)
    d_embedded, d_soft = splice(d_spliced, soft, places, t.at("text"))
    text.embed(d_embedded, ids, t.at("text"), cfg.text)
    return d_soft


def splice(d_spliced, soft, places, t):
    """Part what goes to soft tokens from what goes to embedded ids: two (B, T, D) and (I, P, D) or None."""
    d_spliced = t.keep("spliced", d_spliced)
    return (d_spliced, None) if soft is None else ops.splice(d_spliced, soft, places)
