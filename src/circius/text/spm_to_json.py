"""A SentencePiece BPE model as a `tokenizer.json`, for software that reads nothing else."""

from circius.base.errors import TokenizerError
from circius.text.spm_model import PieceType, SpmModel

_SPACE_MARK = "▁"


def tokenizer_json(model: SpmModel) -> str:
    """The content of a `tokenizer.json` that gives the model's ids; control tokens' text becomes control tokens.

    Every stretch of text between control tokens gets the prefix space, as the parts of a conversation do.

    Raises:
        TokenizerError: the model is no BPE model, rewrites characters, or has no bytes to fall back on.
    """
    import tokenizers
    from tokenizers import AddedToken, decoders, models, normalizers

    if not model.is_bpe or model.charsmap or not model.escape_whitespaces or not model.byte_fallback:
        raise TokenizerError("only a BPE model with byte fallback that changes no character becomes a tokenizer.json")
    vocab = {piece: index for index, piece in enumerate(model.pieces)}
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges(model), byte_fallback=True, fuse_unk=True, unk_token=model.unk_piece)
    )
    spaces = normalizers.Replace(" ", _SPACE_MARK)
    prefix = [normalizers.Prepend(_SPACE_MARK)] if model.add_dummy_prefix else []
    backend.normalizer = normalizers.Sequence([*prefix, spaces])
    steps = [decoders.Replace(_SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if model.add_dummy_prefix else []))
    special = [
        AddedToken(piece, special=True, normalized=False)
        for piece, kind in zip(model.pieces, model.types, strict=True)
        if kind in (PieceType.CONTROL, PieceType.UNKNOWN)
    ]
    backend.add_special_tokens(special)
    content: str = backend.to_str(pretty=False)
    return content


def merges(model: SpmModel) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a third, the likeliest third first: what SentencePiece reads off the scores.

    Of several pairs that make the same piece, the one with the likelier parts comes first.
    """
    rank = {piece: index for index, piece in enumerate(model.pieces) if model.types[index] == PieceType.NORMAL}
    found = [
        (-model.scores[index], rank[piece[:at]], rank[piece[at:]], piece, at)
        for piece, index in rank.items()
        for at in range(1, len(piece))
        if piece[:at] in rank and piece[at:] in rank
    ]
    return [(piece[:at], piece[at:]) for *_, piece, at in sorted(found)]
