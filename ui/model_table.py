"""The Models tab as accessible HTML: an inventory to one table per question."""

from __future__ import annotations

from ui.inventory import Holding, Inventory
from ui.markup import escape, render_badge, render_heading
from ui.text import say, say_or

LOAD, UNLOAD = "load", "unload"
HASH_SHOWN = 12
_COLUMNS = ("model", "status", "accuracy", "licence", "size", "memory", "weights")


def render_inventory(language: str, inventory: Inventory) -> str:
    """Every entry, a table per question; a press of a row's button loads or unloads the model."""
    return "".join(
        f"<section>{render_heading(say_or(language, f'task.{task}', task))}"
        f"{_table(language, holdings, inventory.free_mb)}</section>"
        for task, holdings in inventory.holdings.items()
    )


def render_memory(language: str, inventory: Inventory) -> str:
    """What is free, how many models are loaded, and what happens when one more is."""
    place = "gpu" if inventory.on_gpu else "machine"
    sentences = (
        say(language, f"zoo.free.{place}", free=megabytes(inventory.free_mb)),
        say(language, "zoo.loaded_of", count=inventory.loaded),
    )
    return f"{render_heading(say(language, 'models'))}<p class='memory'>{escape(' '.join(sentences))}</p>"


def megabytes(amount: float) -> str:
    """A size as people read it."""
    return f"{amount / 1000:.1f} GB" if amount >= 1000 else f"{amount:.3g} MB"


def pick_key(action: str, model_id: str) -> str:
    """What a row's button is called between page and server; zoo ids hold no ``|``."""
    return f"{action}|{model_id}"


def _table(language: str, holdings: tuple[Holding, ...], free_mb: float) -> str:
    words = {key: escape(say(language, f"zoo.{key}")) for key in _COLUMNS}
    head = "".join(f'<th scope="col">{words[key]}</th>' for key in _COLUMNS)
    rows = "".join(_row(language, holding, free_mb, words) for holding in holdings)
    action = f'<th scope="col"><span class="spoken">{escape(say(language, "zoo.action"))}</span></th>'
    return f'<div class="wide"><table><thead><tr>{head}{action}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(language: str, holding: Holding, free_mb: float, words: dict[str, str]) -> str:
    spec = holding.spec
    accuracy = say(language, "zoo.unmeasured") if spec.accuracy is None else f"{spec.accuracy:.1%}"
    cells = (
        ("accuracy", "number", escape(accuracy)),
        ("licence", "", escape(spec.licence)),
        ("size", "number", escape(megabytes(spec.size_mb))),
        ("memory", "", _memory(language, holding, free_mb)),
        ("weights", "", _weights(language, holding)),
    )
    body = "".join(f'<td class="{key} {kind}" data-caption="{words[key]}">{value}</td>' for key, kind, value in cells)
    return (
        f'<tr data-model="{escape(spec.id)}"><th scope="row">{_name(language, holding)}</th>'
        f'<td class="status">{_status(language, holding)}</td>{body}'
        f'<td class="action">{_action(language, holding)}</td></tr>'
    )


def _name(language: str, holding: Holding) -> str:
    """What the model is: its name, id, kind and family."""
    spec = holding.spec
    kind = say(language, f"kind.{spec.kind}")
    facts = (spec.id, f"{kind}, {spec.family}" if spec.family else kind)
    return f'<b>{escape(spec.name)}</b><span class="note">{" · ".join(map(escape, facts))}</span>'


def _status(language: str, holding: Holding) -> str:
    """What serves or would, why, what to do about it, and whom to ask for the weights."""
    spec, status = holding.spec, holding.status
    loaded = f'<span class="badge loaded">{escape(say(language, "zoo.loaded"))}</span> ' if holding.loaded else ""
    lines = [f"<p>{loaded}{render_badge(language, status)}</p>"]
    lines += [f'<p class="reason">{escape(text)}</p>' for text in (status.reason,) if text]
    notes = [say(language, f"zoo.{spec.access}", pages=" ".join(holding.pages))] if spec.access != "public" else []
    notes += [say(language, "zoo.trust", id=spec.id)] if spec.remote_code else []
    lines += [f'<p class="access">{escape(note)}</p>' for note in notes]
    if status.remedy:
        summary = escape(say(language, "rows.remedy"))
        lines.append(f'<details class="reason"><summary>{summary}</summary><p>{escape(status.remedy)}</p></details>')
    return "".join(lines)


def _memory(language: str, holding: Holding, free_mb: float) -> str:
    """What the model needs, and of a model that is not loaded the share of what is free."""
    needs = [_in_precision(language, fixed, need) for fixed, need in holding.needs_mb.items()]
    need = next(iter(holding.needs_mb.values()))
    least = "".join(f'<p class="note">{escape(words)}</p>' for words in needs[1:])
    amount = f'<span class="number">{escape(needs[0])}</span>'
    if holding.loaded:
        return amount
    if need > free_mb:
        return f'{amount}<p class="reason">{escape(say(language, "zoo.too_large", free=megabytes(free_mb)))}</p>{least}'
    share = need / free_mb
    spoken = escape(say(language, "zoo.share_of_free", share=f"{share:.0%}"))
    bar = f'<span class="bar" role="img" aria-label="{spoken}"><span style="width:{share:.1%}"></span></span>'
    return f"{amount}{bar}"


def _in_precision(language: str, precision: str, need_mb: float) -> str:
    amount = megabytes(need_mb)
    return say(language, "zoo.in_precision", amount=amount, precision=precision) if precision else amount


def _weights(language: str, holding: Holding) -> str:
    """The hash of the weights in use, its first letters with all of them folded away."""
    digest = holding.status.weights_sha256
    if not digest:
        return f'<span class="note">{escape(say(language, "zoo.unhashed"))}</span>'
    return f"<details><summary>{escape(digest[:HASH_SHOWN])}</summary><p>SHA-256 {escape(digest)}</p></details>"


def _action(language: str, holding: Holding) -> str:
    """The row's button, and room for the news while the model is being loaded."""
    action = UNLOAD if holding.loaded else LOAD
    spoken = say(language, f"zoo.{action}_model", name=holding.spec.name)
    return (
        f'<button type="button" data-pick="{escape(pick_key(action, holding.spec.id))}" aria-label="{escape(spoken)}">'
        f"{escape(say(language, f'zoo.{action}'))}</button>"
        f'<div class="news" hidden><progress max="100" aria-label="{escape(spoken)}"></progress><p></p></div>'
    )
