"""The page that a student gets: points, what was asked for, how to go on. No hidden checks.

What a student wrote or made the grader say is text here, never markup.
"""

from html import escape

STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 45rem; margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1.15rem; margin: 2rem 0 .3rem } p, ul { margin: .3rem 0 }
.points { font-weight: 600 } pre { white-space: pre-wrap; overflow-wrap: anywhere }
"""


def page(result: dict) -> str:
    """The feedback for one graded notebook, as HTML."""
    title = f"{result['assignment']}: feedback for {result['student']}"
    body = [f"<h1>{escape(title)}</h1>", f"<p class='points'>{_total(result)}</p>"]
    body += [f"<p>Note: {escape(note)}</p>" for note in result["notes"]]
    for question in result["questions"]:
        body += _question(question)
    body.append("<p>The checks that give points use other inputs than the visible ones.</p>")
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<title>{escape(title)}</title>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; "
        "style-src 'unsafe-inline'\"><meta name='viewport' content='width=device-width'>"
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _total(result: dict) -> str:
    person = sum(sum(q["person"].values()) for q in result["questions"])
    given = {k: v for q in result["questions"] for k, v in q.get("given", {}).items()}
    points, most = result["points"] + sum(given.values()), result["max"]
    if person and not given:
        return f"{points:g} of {most:g} points, and up to {person:g} that a person gives."
    return f"{points:g} of {most + person:g} points."


def _question(question: dict) -> list[str]:
    lines = [f"<h2>{escape(question['title'])}</h2>"]
    if question["checks"]:
        lines.append(f"<p class='points'>{question['points']:g} of {question['max']:g} points</p>")
        if question["look"]:
            lines.append(f"<p>The visible check says:</p><pre>{escape(question['look'])}</pre>")
        else:
            lines.append("<p>The visible check accepts the answer.</p>")
    lost = [check for check in question["checks"] if not check["points"]]
    reasons = dict.fromkeys(check["lost"] for check in lost)
    told = ("", question["look"])
    lines += [f"<p>{escape(reason)}</p>" for reason in reasons if reason not in told]
    if lost:
        lines.append("<p>What was asked for, and did not come:</p><ul>")
        lines += [f"<li>{escape(c['words'])} ({c['max']:g})</li>" for c in lost]
        lines.append("</ul>")
    for cell, most in question["person"].items():
        given, comment = question.get("given", {}).get(cell), question.get("comments", {}).get(cell)
        said = f"{given:g} of {most:g} points" if given is not None else f"up to {most:g} points"
        lines.append(f"<p class='points'>{said}, given by a person</p>")
        if comment:
            lines.append(f"<pre>{escape(comment)}</pre>")
    return lines
