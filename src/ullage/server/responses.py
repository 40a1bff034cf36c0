"""Response bodies as OpenAI and vLLM write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ullage import __version__
from ullage.model.tokenizer import ModelTokenizer
from ullage.server.generation import Header, Piece
from ullage.server.rows import TokenLogprobs

FINGERPRINT = f"ullage-{__version__}"


def completion(header: Header, pieces: Sequence[Piece], tokenizer: ModelTokenizer) -> dict[str, Any]:
    """The whole answer of /v1/completions."""
    return {
        **_head(header, "text_completion"),
        "choices": [_completion_choice(header, piece, tokenizer, 0, first=True) for piece in pieces],
        "usage": usage(header, sum(len(piece.token_ids) for piece in pieces)),
    }


def chat(header: Header, pieces: Sequence[Piece], tokenizer: ModelTokenizer) -> dict[str, Any]:
    """The whole answer of /v1/chat/completions."""
    choices = [
        {
            "index": piece.index,
            "message": {"role": "assistant", "content": piece.text},
            "logprobs": _chat_logprobs(piece, tokenizer),
            "finish_reason": piece.finish_reason,
            **({"token_ids": piece.token_ids} if header.return_token_ids else {}),
        }
        for piece in pieces
    ]
    return {
        **_head(header, "chat.completion"),
        **({"prompt_token_ids": header.prompts[0]} if header.return_token_ids else {}),
        "choices": choices,
        "usage": usage(header, sum(len(piece.token_ids) for piece in pieces)),
    }


def completion_chunk(
    header: Header, piece: Piece, tokenizer: ModelTokenizer, text_offset: int, *, first: bool
) -> dict[str, Any]:
    """One event of a streamed completion; `text_offset` counts the characters of earlier tokens."""
    return {
        **_head(header, "text_completion"),
        "choices": [_completion_choice(header, piece, tokenizer, text_offset, first=first)],
    }


def chat_opening(header: Header, index: int) -> dict[str, Any]:
    """The first event of a streamed chat choice: who speaks."""
    choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    return {
        **_head(header, "chat.completion.chunk"),
        **({"prompt_token_ids": header.prompts[0]} if header.return_token_ids else {}),
        "choices": [choice],
    }


def chat_chunk(header: Header, piece: Piece, tokenizer: ModelTokenizer) -> dict[str, Any]:
    """One event of a streamed chat answer."""
    choice = {
        "index": piece.index,
        "delta": {"content": piece.text},
        "logprobs": _chat_logprobs(piece, tokenizer),
        "finish_reason": piece.finish_reason,
        **({"token_ids": piece.token_ids} if header.return_token_ids else {}),
    }
    return {**_head(header, "chat.completion.chunk"), "choices": [choice]}


def ids_alone(pieces: Sequence[Piece]) -> dict[str, Any]:
    """An answer, or an event of one, of which the asker wants the token ids and nothing else."""
    return {"choices": [{"index": piece.index, "token_ids": piece.token_ids} for piece in pieces]}


def usage_chunk(header: Header, kind: str, output_tokens: int) -> dict[str, Any]:
    """The event after the last choice that `stream_options.include_usage` asks for."""
    return {**_head(header, kind), "choices": [], "usage": usage(header, output_tokens)}


def usage(header: Header, output_tokens: int) -> dict[str, int]:
    """OpenAI's count of tokens."""
    prompt_tokens = sum(map(len, header.prompts))
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }


def _head(header: Header, kind: str) -> dict[str, Any]:
    return {
        "id": header.request_id,
        "object": kind,
        "created": header.created,
        "model": header.model,
        "system_fingerprint": FINGERPRINT,
    }


def _completion_choice(
    header: Header, piece: Piece, tokenizer: ModelTokenizer, text_offset: int, *, first: bool
) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": piece.index,
        "text": piece.text,
        "logprobs": _completion_logprobs(piece, tokenizer, text_offset),
        "finish_reason": piece.finish_reason,
    }
    if header.return_token_ids:
        choice["token_ids"] = piece.token_ids
        if first:
            choice["prompt_token_ids"] = header.prompts[piece.index // header.n]
    return choice


def _completion_logprobs(piece: Piece, tokenizer: ModelTokenizer, text_offset: int) -> dict[str, Any] | None:
    if not piece.logprobs:
        return None
    tokens = [tokenizer.token_text(token) for token in piece.token_ids]
    offsets = [text_offset]
    for token in tokens[:-1]:
        offsets.append(offsets[-1] + len(token))
    return {
        "tokens": tokens,
        "token_logprobs": [entry.chosen for entry in piece.logprobs],
        "top_logprobs": [_by_text(entry, tokenizer) for entry in piece.logprobs],
        "text_offset": offsets,
    }


def _by_text(entry: TokenLogprobs, tokenizer: ModelTokenizer) -> dict[str, float]:
    """Alternatives by their text. Parts of characters read alike, so a second one goes by its id."""
    found: dict[str, float] = {}
    for token, logprob in entry.top:
        text = tokenizer.token_text(token)
        found[f"token_id:{token}" if text in found else text] = logprob
    return found


def _chat_logprobs(piece: Piece, tokenizer: ModelTokenizer) -> dict[str, Any] | None:
    if not piece.logprobs:
        return None
    content = [
        {
            **_chat_token(token, entry.chosen, tokenizer),
            "top_logprobs": [_chat_token(other, logprob, tokenizer) for other, logprob in entry.top],
        }
        for token, entry in zip(piece.token_ids, piece.logprobs, strict=True)
    ]
    return {"content": content, "refusal": None}


def _chat_token(token: int, logprob: float, tokenizer: ModelTokenizer) -> dict[str, Any]:
    text = tokenizer.token_text(token)
    partial = "\N{REPLACEMENT CHARACTER}" in text
    return {"token": text, "logprob": logprob, "bytes": None if partial else list(text.encode("utf-8"))}
