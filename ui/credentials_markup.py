"""What a picture's content credentials say, as the page shows it."""

from __future__ import annotations

from models.credentials import Credentials
from ui.markup import escape
from ui.text import say

__all__ = ["render_credentials"]


def render_credentials(language: str, found: Credentials | None) -> str:
    """One paragraph; whoever signed is data from the file and is escaped.

    Args:
        language: of the page.
        found: ``None`` where the picture carries none.
    """
    said = [say(language, f"credentials.{found.signature}" if found else "credentials.none")]
    if found is not None:
        said += [say(language, "credentials.issuer", name=found.issuer)] if found.issuer else []
        said += [say(language, "credentials.generator", name=found.generator)] if found.generator else []
        if found.ai_generated is not None:
            said.append(say(language, "credentials.ai" if found.ai_generated else "credentials.no_ai"))
    line = f"{escape(say(language, 'credentials'))}: {escape('; '.join(said))}."
    if found is not None and found.signature == "valid":
        line += f" {escape(say(language, 'credentials.note'))}"
    # Told as loudly as a verdict where the file itself says that it was made or changed.
    loud = found is not None and (found.ai_generated or found.signature == "invalid")
    return f'<p class="credentials">{f"<strong>{line}</strong>" if loud else line}</p>'
