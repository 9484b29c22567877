"""A table that a reader can sort and filter, without a script from elsewhere."""

from __future__ import annotations

_EXPLORER = """
(() => {
  const box = document.getElementById("NAME"), table = box.querySelector("table");
  const bar = box.querySelector(".bs-controls"), said = box.querySelector("output");
  const head = [...table.tHead.rows[0].cells], rows = [...table.tBodies[0].rows];
  const text = (row, i) => row.cells[i].textContent.trim();
  const controls = [...bar.querySelectorAll("select, input")];
  const show = () => {
    let left = 0;
    for (const row of rows) {
      const fits = controls.every(c => c.tagName === "SELECT"
        ? !c.value || text(row, +c.dataset.column) === c.value
        : row.textContent.toLowerCase().includes(c.value.toLowerCase()));
      row.hidden = !fits;
      left += fits;
    }
    said.textContent = `${left} of ${rows.length} shown`;
  };
  head.forEach((cell, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent;
    button.onclick = () => {
      const up = cell.getAttribute("aria-sort") !== "ascending";
      head.forEach(other => other.removeAttribute("aria-sort"));
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((a, b) => (up ? 1 : -1) * text(a, i).localeCompare(text(b, i), "en", {numeric: true}));
      table.tBodies[0].append(...rows);
    };
    cell.replaceChildren(button);
  });
  controls.forEach(c => c.addEventListener("input", show));
  bar.hidden = false;
  show();
})();
"""
_EXPLORER_STYLE = (
    "<style>.bs-explorer{margin:1rem 0;overflow-x:auto}"
    ".bs-explorer .bs-controls{display:flex;flex-wrap:wrap;gap:.4rem 1rem;align-items:end;margin-bottom:.6rem}"
    ".bs-explorer .bs-controls[hidden]{display:none}.bs-explorer label{display:grid;font-size:.85rem}"
    ".bs-explorer :is(input,select){font:inherit;color:inherit;background:transparent;border:1px solid;"
    "border-radius:4px;padding:.2rem .4rem;max-width:100%}.bs-explorer output{font-size:.85rem}"
    ".bs-explorer option{color:#1b1f24;background:#fff}"
    ".bs-explorer table{border-collapse:collapse;font-size:.82rem;line-height:1.35}"
    ".bs-explorer caption{caption-side:top;text-align:left;padding-bottom:.4rem}"
    ".bs-explorer :is(td,th){text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;"
    "border-bottom:1px solid rgba(127,127,127,.4)}"
    ".bs-explorer th button{font:inherit;color:inherit;background:none;border:0;padding:0;text-align:left}"
    ".bs-explorer th button:focus-visible{outline:2px solid;outline-offset:2px}"
    '.bs-explorer th button::after{content:" \\2195";opacity:.7}'
    '.bs-explorer th[aria-sort=ascending] button::after{content:" \\2191"}'
    '.bs-explorer th[aria-sort=descending] button::after{content:" \\2193"}</style>'
)


def explorer(table, *, name: str, caption: str, filters=()):
    """A table that a reader can search, filter and sort, by mouse or keyboard; a plain table where scripts do not run.

    Parameters
    ----------
    table : DataFrame
        With a named index; shown as it stands.
    name : str
        Identifier, unique on the page: letters, digits and hyphens.
    caption : str
        What the table holds.
    filters : sequence of str
        Columns offered as a choice of their values.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        If the name, the caption or a filter cannot be used.
    """
    import html
    import re

    from IPython.display import HTML

    unknown = [f for f in filters if f not in table.columns]
    if unknown or not caption.strip() or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(
            f"a table needs a plain name, a caption, and filters that are columns: see {unknown or name!r}"
        )
    columns = [table.index.name or "", *map(str, table.columns)]
    controls = ["<label>Search <input type='search'></label>"]
    for column in filters:
        options = "".join(f"<option>{html.escape(v)}</option>" for v in sorted(set(map(str, table[column]))))
        controls.append(
            f"<label>{html.escape(column)} <select data-column='{columns.index(column)}'>"
            f"<option value=''>all</option>{options}</select></label>"
        )
    head = "".join(f"<th scope='col'>{html.escape(c)}</th>" for c in columns)
    body = "".join(
        f"<tr><th scope='row'>{html.escape(str(row))}</th>"
        + "".join(f"<td>{html.escape(str(v))}</td>" for v in values)
        + "</tr>"
        for row, values in zip(table.index, table.itertuples(index=False), strict=True)
    )
    return HTML(
        f"{_EXPLORER_STYLE}<div class='bs-explorer' id='{name}'><div class='bs-controls' hidden>{''.join(controls)}"
        f"<output role='status'></output></div><table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<script>{_EXPLORER.replace('NAME', name)}</script>"
    )
