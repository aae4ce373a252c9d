"""How a page looks: its head, with all of its style, and its end."""

from typing import Final

HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{
  --paper: #f6f7f8; --card: #ffffff; --ink: #24303c; --muted: #66727f; --line: #dfe4e8;
  --ticker: #b57a1e; --deal: #2b6ca3; --depth: #3d8a67; --gap: #c8503c; --unknown: #7d5ba6;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --paper: #14181c; --card: #1b2126; --ink: #dbe2e8; --muted: #93a0ac; --line: #303941;
    --ticker: #d9a552; --deal: #6aa9dc; --depth: #6dbd97; --gap: #e5735f; --unknown: #a98bd0;
  }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }}
main {{ max-width: 1120px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }}
h1 {{ font-size: 1.7rem; margin: 0; letter-spacing: -0.01em; }}
h2 {{ font-size: 1.3rem; margin: 0; overflow-wrap: anywhere; }}
h3 {{ font-size: 0.95rem; margin: 0; }}
p {{ margin: 0.25rem 0; }}
.muted, .note {{ color: var(--muted); }}
.note {{ font-size: 0.85rem; max-width: 58rem; }}
.card + .note {{ margin-top: 0.75rem; }}
.verdict {{ font-size: 1.1rem; margin: 0.75rem 0 1.5rem; }}
section, .card {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.25rem 1.5rem; margin-top: 1.5rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: 0.9rem;
  font-variant-numeric: tabular-nums; }}
th {{ color: var(--muted); font-weight: 500; }}
th, td {{ text-align: right; padding: 0.35rem 0.7rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); }}
tr:last-child td {{ border-bottom: 0; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
th.left, td.left {{ text-align: left; }}
th:last-child, td:last-child {{ padding-right: 0; }}
.figures {{ display: flex; flex-wrap: wrap; gap: 0.5rem 2.25rem; margin: 0.75rem 0 0.5rem; }}
.figures div span {{ display: block; color: var(--muted); font-size: 0.8rem; }}
.figures div {{ font-size: 1.1rem; font-variant-numeric: tabular-nums; }}
figure {{ margin: 1.4rem 0 0; }}
figure svg {{ display: block; width: 100%; height: auto; }}
.narrow {{ display: none; }}
nav {{ display: flex; gap: 1.25rem; margin-bottom: 0.75rem; font-size: 0.9rem; }}
figure svg text {{ font-family: inherit !important; }}
details {{ margin-top: 1.25rem; }}
summary {{ cursor: pointer; font-weight: 600; font-size: 0.95rem; }}
a {{ color: var(--deal); text-decoration: none; }}
.key {{ display: inline-block; width: 0.9em; height: 0.9em; vertical-align: -0.1em;
  border-radius: 2px; opacity: 0.4; }}
@media (max-width: 640px) {{
  main {{ padding: 1.25rem 0.75rem 3rem; }}
  section, .card {{ padding: 1rem 0.9rem; }}
  .wide, .extra {{ display: none; }}
  .narrow {{ display: block; }}
  .verdict {{ font-size: 1rem; }}
  th, td {{ padding: 0.4rem 0.45rem; }}
}}
@media print {{ section {{ break-inside: avoid; }} }}
</style>
</head>
<body>
<main>
"""

TAIL: Final = "</main>\n</body>\n</html>\n"
