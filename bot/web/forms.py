"""What visitors do: ask for an export, and end, repeat or resume a job. Forms in, the job's page out.

Everything of a form is checked against tables before the Hub is asked. What is wrong is said beside its field, and
what was typed stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from bot import amounts, choices
from bot.errors import HubRefused, HubUnreachable, NotAuthorized, RepoNotFound, UnsafeRepository
from bot.hubapi import SHA, asking, connect
from bot.names import BACKENDS, CACHES, EMBEDDINGS, MOST_KL, MOST_TOKENS, PRECISIONS
from bot.publish.card import REPO_ID
from bot.server.records import LIVE, Asked, Asker, JobRecord
from bot.web.call import JOB_ID, Call
from exporter import calibration_files

MOST_LIVE = 5
"""Jobs that wait or run at once for one person who is no administrator."""
BACKEND_WORDS = {
    "portable": "runs everywhere ExecuTorch does, slowly",
    "xnnpack": "phones and laptops, on the processor",
    "openvino": "Intel processors and graphics",
}
PRECISION_WORDS = {
    "fp32": "full precision, large",
    "8da8w": "int8 weights and activations: a quarter of the size, nearly exact",
    "8da4w": "int4 weights, calibrated: small and quick",
    "8da4w-rtn": "int4 weights, rounded to nearest: as small, made sooner, further from the model",
    "4w": "int4 weights, calibrated, exact activations",
    "4w-nncf": "int4 weights, rounded by OpenVINO's own toolchain",
    "8w": "int8 weights, exact activations",
    "auto": "4 or 8 bits for each layer, by measurement, within the budget below",
}
EMBEDDING_WORDS = {
    "": "what the model's repository asks for, else 8w",
    "8w": "int8, or int4 where that buys more elsewhere",
    "4w": "int4: the smallest file",
    "fp32": "as it is, large",
}
CACHE_WORDS = {
    "": "what the model's repository asks for, else as computed",
    "fp32": "as computed",
    "int8": "a quarter of the memory, where the backend has the op",
}
_MOST_TEXTS = calibration_files.MOST_FILES * (calibration_files.MOST_CHARACTERS + 2)
"""Characters of all names of calibration texts, with what separates them."""
_ALIASES = {"huggingface.co": {"huggingface.co", "www.huggingface.co", "hf.co"}}
_NO_MODEL = {"datasets", "spaces", "docs", "papers", "collections", "organizations", "blog", "api"}


@dataclass
class Entered:
    """What the form holds, and what is wrong with it, by field."""

    model: str = ""
    backends: Sequence[str] = ()
    precisions: Sequence[str] = ()
    max_seq_len: str = ""
    max_kl: str = ""
    max_size: str = ""
    embedding: str = ""
    cache: str = ""
    calibration: str = ""
    errors: dict[str, str] = field(default_factory=dict)


def new(call: Call) -> Response:
    """GET /new: the form, with the server's own choices."""
    settings = call.site.settings
    model = call.query("model")
    entered = Entered(
        model,
        settings.backends,
        settings.precisions,
        max_seq_len=str(settings.max_seq_len or ""),
        max_kl=amounts.decimal(settings.max_kl) if settings.max_kl else "",
        max_size=str(settings.max_size or ""),
    )
    return _form(call, entered)


def submit(call: Call) -> Response:
    """POST /new: a job for the model's main branch as it is now, and its page."""
    if not call.visitor.signed_in:
        raise HTTPException(403, "Sign in to ask for an export.")
    entered = Entered(
        model=_text(call, "model"),
        backends=[str(one) for one in call.form.getlist("backends")][:20],
        precisions=[str(one) for one in call.form.getlist("precisions")][:20],
        max_seq_len=_text(call, "max_seq_len"),
        max_kl=_text(call, "max_kl"),
        max_size=_text(call, "max_size"),
        embedding=_text(call, "embedding"),
        cache=_text(call, "cache"),
        calibration=_text(call, "calibration", _MOST_TEXTS),
    )
    options = _options(entered)
    repo_id = _repo_id(call.site.settings.endpoint, entered)
    if not (entered.errors or call.visitor.admin) and _live_jobs(call) >= MOST_LIVE:
        entered.errors["form"] = f"{MOST_LIVE} of your jobs wait or run already: wait for one of them to end."
    if entered.errors:
        return _form(call, entered, 422)
    token = call.site.auth.token_of(call.request)
    if token is None and not call.visitor.admin:
        raise HTTPException(403, "Your sign-in allows no pull requests in your name: sign in again and allow them.")
    try:
        found = _head(call, repo_id, token)
    except (RepoNotFound, NotAuthorized, UnsafeRepository) as error:
        entered.errors["model"] = f"{error.title}. {error.advice}"
        return _form(call, entered, 422)
    except (HubUnreachable, HubRefused) as error:
        entered.errors["form"] = f"{error.title}. Try again in a while."
        return _form(call, entered, 502)
    if found is None:
        entered.errors["model"] = "This model is private, and these pages are public."
        return _form(call, entered, 422)
    asked = Asked(repo_id=found[0], sha=found[1], options=options)
    job, _new = call.site.actions.submit(asked, Asker(trigger="form", name=call.visitor.name), token=token)
    if not found[2]:
        call.store.update(job.id, private=False)
    return RedirectResponse(f"/jobs/{job.id}", 303)


def cancel(call: Call) -> Response:
    """POST /jobs/{id}/cancel."""
    return _act(call, call.site.actions.cancel)


def retry(call: Call) -> Response:
    """POST /jobs/{id}/retry."""
    return _act(call, call.site.actions.retry)


def resume(call: Call) -> Response:
    """POST /jobs/{id}/resume."""
    return _act(call, call.site.actions.resume)


def repo_id_of(text: str, endpoint: str) -> str:
    """``owner/name`` of what was pasted: a model's id, or the address of any of its pages on the Hub.

    Raises:
        ValueError: it is neither; the text says why.
    """
    text = text.strip()
    if not text:
        raise ValueError("Give a model, as owner/name or by its address on the Hub.")
    if "://" in text or text.lower().startswith(("www.", "hf.co/", "huggingface.co/")):
        text = _path_of(text, endpoint)
    if not REPO_ID.fullmatch(text):
        raise ValueError("This is no model's id: give owner/name, as the Hub shows it at the top of the model's page.")
    return text


def _path_of(address: str, endpoint: str) -> str:
    host = urlsplit(endpoint).netloc.lower()
    try:
        parts = urlsplit(address if "://" in address else f"https://{address}")
        given = parts.netloc.lower()
    except ValueError:
        raise ValueError("This address cannot be read.") from None
    if given not in {host} | _ALIASES.get(host, set()):
        raise ValueError(f"This is no address of {host}, where models are looked up.")
    segments = [unquote(part) for part in parts.path.split("/") if part]
    if segments[:1] == ["models"]:
        segments = segments[1:]
    if len(segments) < 2 or segments[0].lower() in _NO_MODEL:
        raise ValueError("This is no model's address: it should look like …/owner/name.")
    return "/".join(segments[:2])


def _form(call: Call, entered: Entered, status: int = 200) -> Response:
    return call.render(
        "new.html",
        status,
        entered=entered,
        backends=[(name, BACKEND_WORDS.get(name, "")) for name in BACKENDS],
        precisions=[(name, PRECISION_WORDS.get(name, "")) for name in PRECISIONS],
        embeddings=[(name, EMBEDDING_WORDS.get(name, "")) for name in ("", *EMBEDDINGS)],
        caches=[(name, CACHE_WORDS.get(name, "")) for name in ("", *CACHES)],
        most_tokens=MOST_TOKENS,
        most_texts=_MOST_TEXTS,
    )


def _options(entered: Entered) -> dict[str, Any]:
    """Fields of the spec; notes what is wrong."""
    options: dict[str, Any] = {}
    for name, known, given in (
        ("backends", BACKENDS, entered.backends),
        ("precisions", PRECISIONS, entered.precisions),
    ):
        chosen = [one for one in known if one in given]
        if not chosen or len(chosen) != len(set(given)):
            entered.errors[name] = f"Choose at least one of {', '.join(known)}."
        options[name] = chosen
    if entered.max_seq_len:
        if not re.fullmatch(r"[0-9]{1,9}", entered.max_seq_len) or not 1 <= int(entered.max_seq_len) <= MOST_TOKENS:
            entered.errors["max_seq_len"] = f"Give a number of tokens from 1 to {MOST_TOKENS:,}, or leave it empty."
        else:
            options["max_seq_len"] = int(entered.max_seq_len)
    _budget(entered, options)
    alternatives: tuple[tuple[str, tuple[str, ...], str], ...] = (
        ("embedding", EMBEDDINGS, entered.embedding),
        ("cache", CACHES, entered.cache),
    )
    for name, names, one in alternatives:
        if one and one not in names:
            entered.errors[name] = f"Choose one of {', '.join(names)}."
        elif one:
            options[name] = one
    if texts := [name.strip() for name in entered.calibration.split(",") if name.strip()]:
        options["calibration"] = texts
        if (reason := calibration_files.wrong_list(texts)) is not None:
            entered.errors["calibration"] = f"These cannot be files of the model: {reason}."
    return options


def _budget(entered: Entered, options: dict[str, Any]) -> None:
    """The budget of ``auto``, which goes with it and with nothing else."""
    for name, given, parse, allowed in (
        ("max_kl", entered.max_kl, amounts.nats, f"a number above 0 and at most {MOST_KL:g}, 0.05 for one"),
        ("max_size", entered.max_size, amounts.file_size, "a size with its unit, 90MB for one"),
    ):
        if given:
            try:
                options[name] = parse(given)
            except ValueError:
                entered.errors[name] = f"Give {allowed}, or leave it empty."
    any_given = bool(entered.max_kl or entered.max_size)
    if choices.AUTO in entered.precisions and not any_given:
        entered.errors["budget"] = "Give auto a budget: how far from the model its file may be, or how large."
    if any_given and choices.AUTO not in entered.precisions and not {*choices.BUDGETS} & entered.errors.keys():
        entered.errors["budget"] = "The budget is for auto, which is not chosen above: choose it, or leave this empty."


def _repo_id(endpoint: str, entered: Entered) -> str:
    try:
        return repo_id_of(entered.model, endpoint)
    except ValueError as error:
        entered.errors["model"] = str(error)
        return ""


def _head(call: Call, repo_id: str, token: str | None) -> tuple[str, str, bool] | None:
    """The repository as the Hub spells it, its main branch's commit, and whether not everybody may see it.

    None where it must not be shown here.

    With a person's own token, so that nobody learns of a repository that only the bot may see.
    """
    settings = call.site.settings
    secret = settings.token.get_secret_value() if settings.token else None
    api = connect(settings.endpoint, token if token is not None or not call.visitor.admin else secret)
    with asking(f"looking up {repo_id}", api):
        info = api.model_info(repo_id, revision="main", timeout=20)
    if not REPO_ID.fullmatch(info.id) or not SHA.fullmatch(info.sha or ""):
        raise UnsafeRepository(f"The Hub describes {repo_id} as {info.id[:200]!r} at {str(info.sha)[:80]!r}.")
    if info.private and settings.public_pages and not call.visitor.admin:
        return None
    return info.id, str(info.sha), bool(info.private)


def _live_jobs(call: Call) -> int:
    return sum(one.asker.name == call.visitor.name for one in call.store.jobs(states=LIVE, limit=1000))


def _act(call: Call, action: Any) -> Response:
    if not call.visitor.admin:
        raise HTTPException(403, "Only administrators may do this.")
    job_id = call.param("job_id")
    if not JOB_ID.fullmatch(job_id):
        raise HTTPException(404)
    job: JobRecord = action(job_id, by=call.visitor.by)
    return RedirectResponse(f"/jobs/{job.id}", 303)


def _text(call: Call, name: str, most: int = 500) -> str:
    value = call.form.get(name, "")
    return value.strip()[:most] if isinstance(value, str) else ""
