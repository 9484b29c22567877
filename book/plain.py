"""MyST text to the plain Markdown that a hosted notebook can show.

A chapter is written once, in MyST, with roles and directives that only the book's renderer understands. The notebook
made from it is opened where nothing understands them, so each becomes what a reader would see: a citation its authors
and year, a glued number the recorded value, an admonition a block quote, an exercise a heading. A role or directive
without a rule here is an error, so that no notebook ever shows raw markup.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field

BOXES = {"note", "tip", "warning", "important", "caution", "danger", "attention", "hint", "seealso", "error"}
BOXES |= {"admonition", "dropdown", "margin", "sidebar"}
BOXES |= {"topic", "epigraph", "card", "aside"}
OPEN = {"tab-set", "tab-item", "grid", "grid-item", "grid-item-card", "div", "container", "table"}
DROP = {"toctree", "contents", "tableofcontents", "bibliography", "raw", "only", "index", "exercise-end"}
DROP |= {"solution-end", "highlight", "currentmodule"}
PLAIN_ROLES = {"term", "abbr", "kbd", "guilabel", "menuselection", "command", "file", "samp", "fn", "class", "func"}
PLAIN_ROLES |= {"mod", "meth", "attr", "py:class", "py:func", "py:mod", "py:meth", "octicon", "span", "bdg", "button"}
NEVER_RECORDED = "computed"


class PlainError(ValueError):
    """The text holds markup that has no plain form, or points at something that does not exist."""


@dataclass
class Context:
    """What the plain text is filled from.

    Attributes
    ----------
    record : callable of (name) -> float, int, str or None
        The recorded value behind ``{glue:text}``; None when there is none yet.
    cite : callable of (key) -> (authors, year, url)
        What a citation shows; raises :class:`PlainError` for an unknown key.
    here : str
        Folder of the chapter in the repository, with forward slashes.
    site, raw : str
        Where the rendered book and the repository's files are published.
    """

    record: Callable[[str], object] = lambda name: None
    cite: Callable[[str], tuple[str, str, str]] = lambda key: (key, "", "")
    here: str = ""
    site: str = ""
    raw: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    exercises: dict[str, int] = field(default_factory=dict)


def plain(text: str, context: Context) -> str:
    """Return `text` with every MyST role, directive, label and comment turned into plain Markdown.

    Raises
    ------
    PlainError
        For a role or directive without a rule, a fence that is never closed, or an unknown citation.
    """
    out: list[str] = []
    lines = text.split("\n")
    paragraph: list[str] = []

    def flush():
        if paragraph:
            out.append(_inline("\n".join(paragraph), context))
            paragraph.clear()

    i = 0
    while i < len(lines):
        line = lines[i]
        fence = re.match(r"^(\s*)(`{3,}|~{3,}|:{3,})\s*(.*)$", line)
        if fence and (fence[2][0] != ":" or fence[3].startswith("{")):
            flush()
            end = _closing(lines, i, fence[2])
            body = lines[i + 1 : end]
            named = re.match(r"^\{([\w:.-]+)\}\s*(.*)$", fence[3])
            if named:
                out.append(_directive(named[1], named[2].strip(), body, context))
            else:
                out.extend(lines[i : end + 1])
            i = end + 1
            continue
        if line.startswith("$$"):
            flush()
            closed = i if line.rstrip() != "$$" else next((j for j in range(i + 1, len(lines)) if "$$" in lines[j]), i)
            block = "\n".join(lines[i : closed + 1])
            out.append(re.sub(r"\$\$\s*\([\w-]+\)\s*$", "$$", block))
            i = closed + 1
            continue
        label = re.match(r"^\(([\w-]+)\)=\s*$", line)
        if line.startswith("%") or label or re.match(r"^\{[#.][^}]*\}\s*$", line):
            pass
        elif line.strip():
            paragraph.append(line)
        else:
            flush()
            out.append("")
        i += 1
    flush()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip("\n")


def survey(text: str, context: Context) -> None:
    """Learn a chapter's labels (heading titles) and exercise numbers, so that references can be filled in."""
    for label, title in re.findall(r"^\(([\w-]+)\)=\s*\n+#+\s+(.+)$", text, re.M):
        context.labels[label] = title.strip()
    starts = re.finditer(r"^[`:~]{3,}\{exercise(?:-start)?\}.*\n((?::[\w-]+:.*\n)*)", text, re.M)
    for number, found in enumerate(starts, 1):
        label = re.search(r":label:\s*(\S+)", found[1])
        context.exercises[label[1] if label else f"exercise {number}"] = number


def _closing(lines, start, mark):
    pattern = re.compile(rf"^\s*{re.escape(mark[0])}{{{len(mark)},}}\s*$")
    for j in range(start + 1, len(lines)):
        if pattern.match(lines[j]):
            return j
    raise PlainError(f"the fence {lines[start].strip()!r} is never closed")


def _options(body):
    """Split a directive's ``:key: value`` or YAML options from its content."""
    options, rest = {}, list(body)
    if rest and rest[0].strip() == "---":
        end = next((j for j in range(1, len(rest)) if rest[j].strip() == "---"), len(rest) - 1)
        pairs, rest = rest[1:end], rest[end + 1 :]
        options = dict(re.match(r"\s*([\w-]+):\s*(.*)", p).groups() for p in pairs if ":" in p)
    else:
        while rest and (found := re.match(r"^\s*:([\w-]+):\s*(.*)$", rest[0])):
            options[found[1]] = found[2]
            rest.pop(0)
    return options, "\n".join(rest).strip("\n")


def _quote(title, body):
    lines = ([f"**{title}**", ""] if title else []) + (body.split("\n") if body else [])
    return "\n".join(("> " + line).rstrip() for line in lines).rstrip("\n>").rstrip()


def _directive(name, argument, body, context):
    options, content = _options(body)
    if name in DROP:
        return ""
    if name in ("math",):
        return f"$$\n{content or argument}\n$$"
    if name in ("code", "code-block", "sourcecode", "literalinclude"):
        return f"```{argument}\n{content}\n```"
    if name in ("image", "figure"):
        alt = _inline(options.get("alt", ""), context)
        image = f"![{alt}]({_file(argument, context)})"
        return image + (f"\n\n*{plain(content, context)}*" if content else "")
    if name in ("exercise", "exercise-start"):
        number = context.exercises.get(options.get("label", ""), "")
        title = " ".join(filter(None, [f"Exercise {number}".strip(), _inline(argument, context)]))
        return f"### {title}\n\n{plain(content, context)}".rstrip()
    if name in ("solution", "solution-start"):
        if argument not in context.exercises:
            raise PlainError(f"a solution names the exercise {argument!r}, which this chapter does not have")
        return f"#### Solution to exercise {context.exercises[argument]}\n\n{plain(content, context)}".rstrip()
    inner = plain(content, context)
    title = _inline(argument, context)
    if name in BOXES or name.startswith("prf:"):
        if name not in ("admonition", "dropdown", "margin", "sidebar", "topic", "card", "aside", "epigraph"):
            word = name.removeprefix("prf:").capitalize() if name != "seealso" else "See also"
            # Admonitions take their argument as the first words of the text; theorems take it as a title.
            if name.startswith("prf:"):
                title = f"{word} ({title})" if title else word
            else:
                inner, title = "\n\n".join(filter(None, [title, inner])), word
        return _quote(title, inner)
    if name in OPEN:
        return "\n\n".join(filter(None, [f"**{title}**" if title and name != "grid" else "", inner]))
    raise PlainError(f"the directive {{{name}}} has no plain form: add one to book/plain.py, or write it another way")


def _inline(text, context):
    kept = []

    def keep(found):
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    # Left to right, so that a role inside code stays code and a role's backticks are not taken for code.
    role_or_code = r"\{([\w:.+-]+)\}(`+)(.+?)(?<!`)\2(?!`)|(?<!`)(`+)(?!`).+?(?<!`)\4(?!`)"

    def see(found):
        return keep([_role(found[1], found[3], context)] if found[1] else found)

    text = re.sub(role_or_code, see, text, flags=re.S)
    text = re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", lambda m: keep([_link(m, context)]), text)
    # A link's text may hold a kept role, so they are put back until none is left.
    while "\0" in text:
        text = re.sub("\0(\\d+)\0", lambda m: kept[int(m[1])], text)
    return text


def _split(body):
    found = re.match(r"^(.*?)\s*<([^<>]+)>$", body, re.S)
    return (found[1], found[2]) if found else ("", body)


def _words(label):
    return re.sub(r"^(fig|tab|sec|ex|eq)-", "", label).replace("-", " ").replace("_", " ")


def _role(name, body, context):
    text, target = _split(body)
    if name == "glue:text":
        return glued(body, context)
    if name.startswith("cite"):
        return _citation(name, body, context)
    if name in ("numref", "ref"):
        if target in context.exercises:
            return text.replace("%s", str(context.exercises[target])) or f"exercise {context.exercises[target]}"
        if target.startswith("fig-"):
            return f"the figure “{_words(target)}”"
        return text.replace("%s", "").strip() or context.labels.get(target) or _words(target)
    if name in ("doc", "download"):
        return f"[{text or _words(posixpath.basename(target))}]({_page(target, context)})"
    if name == "eq":
        return "the equation above"
    if name == "math":
        return f"${body}$"
    if name in ("sub", "subscript"):
        return f"<sub>{body}</sub>"
    if name in ("sup", "superscript"):
        return f"<sup>{body}</sup>"
    if name in ("prf:ref",):
        return text or _words(target)
    if name in PLAIN_ROLES or name.startswith("bdg-"):
        return text or (target if name in ("term", "abbr") else f"`{target.lstrip('~')}`")
    raise PlainError(f"the role {{{name}}} has no plain form: add one to book/plain.py, or write it another way")


def glued(body: str, context: Context) -> str:
    """The recorded value behind ``{glue:text}`name:spec```, formatted as the book's renderer formats it."""
    key, _, spec = body.partition(":") if "::" not in body else (body.rpartition("::")[2].partition(":"))
    value = context.record(key.strip())
    if value is None:
        return NEVER_RECORDED
    if not spec:
        return str(value)
    try:
        return minus(f"{float(value):>{spec}}".strip())
    except (TypeError, ValueError) as e:
        raise PlainError(f"the recorded value of {key!r} is {value!r}, which the format {spec!r} cannot show") from e


def minus(number: str) -> str:
    """A number as it is printed: with a minus sign in place of the hyphen that Python writes."""
    return re.sub(r"^-(?=[\d.])", "\N{MINUS SIGN}", number)


def _citation(name, body, context):
    inside = not name.startswith(("cite:t", "cite:ct"))
    shown = []
    for key in re.split(r"\s*,\s*", body.strip()):
        authors, year, url = context.cite(key)
        words = f"{authors}, {year}" if inside else f"{authors} ({year})"
        shown.append(f"[{words}]({url})" if url else words)
    return f"({'; '.join(shown)})" if inside and not name.endswith("alp") else "; ".join(shown)


def _link(found, context):
    bang, text, target = found.groups()
    if bang:
        return f"![{text}]({_file(target, context)})"
    if target.startswith("#"):
        label = target[1:]
        return text or _role("ref", label, context)
    if re.match(r"^[a-z][a-z0-9+.-]*:", target):
        return found[0]
    if re.search(r"\.(md|ipynb)(#.*)?$", target):
        return f"[{text or _words(posixpath.basename(target))}]({_page(target, context)})"
    return f"[{text}]({_file(target, context)})"


def _path(target, context):
    if target.startswith("/"):
        return target.lstrip("/")
    return posixpath.normpath(posixpath.join(context.here, target))


def _page(target, context):
    target, hash_, anchor = target.partition("#")
    return f"{context.site}/{re.sub(r'[.](md|ipynb)$', '', _path(target, context))}.html{hash_}{anchor}"


def _file(target, context):
    return target if re.match(r"^[a-z]+:", target) else f"{context.raw}/{_path(target, context)}"
