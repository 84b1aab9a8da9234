"""The page around the pictures: plain HTML and CSS, nothing from outside the file. Every text is escaped."""

import html


def escape(value):
    return html.escape(str(value), quote=True)


def figure_text(value, digits=3, unit=""):
    """A number for people; an en dash where there is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:
        return "–"
    return f"{value:,.{digits}f}{unit}".replace("-", "−") if digits else f"{value:,.0f}{unit}"


def with_interval(one, key, digits=3, strong=False):
    """A cell: the figure and, small, its bootstrap interval where there is one."""
    value, low, high = (one.get(name) for name in (key, f"{key}_low", f"{key}_high"))
    text = f"<b>{figure_text(value, digits)}</b>" if strong and value is not None else figure_text(value, digits)
    note = "" if low is None or high is None else f" <small>{figure_text(low, 2)}–{figure_text(high, 2)}</small>"
    return ("html", text + note)


def table(header, rows, classes=""):
    """rows: lists of cells; a cell that is ("html", text) is taken as it is."""
    def cell(tag, value):
        return f"<{tag}>{value[1] if isinstance(value, tuple) else escape(value)}</{tag}>"
    head = "".join(cell("th", value) for value in header)
    body = "".join("<tr>" + "".join(cell("td", value) for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{classes}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def missing(what):
    return f'<p class="missing">{escape(what)}</p>'


def section(anchor, title, lead, *content):
    lead = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{lead}{"".join(content)}</section>'


def captioned(picture, caption):
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def grid(items, classes="figures"):
    return f'<div class="{classes}">{"".join(items)}</div>'


def tile(number, label, note):
    return f'<div class="tile"><b>{escape(number)}</b><span>{escape(label)}</span><small>{escape(note)}</small></div>'


def page(title, subtitle, tiles, sections, names):
    links = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name in names)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}</style></head>
<body><header><p class="kicker">AstroCLIP</p><h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p>
<div class="tiles">{"".join(tiles)}</div><nav>{links}</nav></header>
<main>{"".join(sections)}</main></body></html>
"""


STYLE = """
:root{--ink:#22262e;--quiet:#6d7482;--rule:#e0ddd5;--paper:#fbfaf7;--card:#fff;--image:#c4561f;--spectrum:#275d8c}
*{box-sizing:border-box}
img,svg{max-width:100%;height:auto}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI","Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
header,main{max-width:1120px;margin:0 auto;padding:0 clamp(16px,4vw,40px)}
header{padding-top:clamp(28px,5vw,56px)}
h1,h2,h3{font-family:Charter,"Bitstream Charter","Iowan Old Style",Georgia,"DejaVu Serif",serif;font-weight:600;line-height:1.2;text-wrap:balance}
h1{font-size:clamp(1.9rem,4.5vw,2.9rem);margin:.1em 0 .15em;overflow-wrap:anywhere}
h2{font-size:1.55rem;margin:0 0 .35em}
h3{font-size:1.08rem;margin:1.8em 0 .6em}
.kicker{margin:0;color:var(--image);font-weight:600;font-size:.8rem;letter-spacing:.14em;text-transform:uppercase}
.subtitle{color:var(--quiet);margin:0 0 1.6em;overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:.2em 1.3em;margin-top:1.8em;padding:.7em 0;border-block:1px solid var(--rule);font-size:.92rem}
a{color:var(--spectrum);text-decoration:none}a:hover{text-decoration:underline}
section{padding:2.6em 0 1.2em;border-bottom:1px solid var(--rule)}section:last-child{border:0}
.lead{max-width:46em;color:#454b57;margin:.2em 0 1.5em}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:14px 16px;display:flex;flex-direction:column}
.tile b{font:600 1.75rem/1.15 Charter,"Bitstream Charter",Georgia,"DejaVu Serif",serif;font-variant-numeric:lining-nums tabular-nums}
.tile span{font-size:.88rem;margin-top:.25em}.tile small{color:var(--quiet);font-size:.78rem;line-height:1.4;margin-top:.2em}
.scroll{overflow-x:auto;margin:0 0 1.2em}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--quiet);font-size:.78rem;text-align:right;vertical-align:bottom;padding:.4em .9em .5em 0;border-bottom:1.5px solid var(--ink);white-space:nowrap}
td{padding:.42em .9em .42em 0;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}
th:first-child,td:first-child,.left th,.left td{text-align:left}
.left td:last-child{white-space:normal;overflow-wrap:anywhere}
td b{font-weight:650}td small{color:var(--quiet);font-size:.82em}
.dot{display:inline-block;width:.65em;height:.65em;border-radius:50%;margin-right:.55em}
.missing{border:1px dashed #c9c4b8;border-radius:8px;color:var(--quiet);padding:.8em 1.1em;margin:0 0 1em}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,270px),1fr));gap:22px 26px;align-items:start}
.figures+.figures,.figures+.scroll,.pairs{margin-top:22px}
.figures.one{grid-template-columns:1fr}
.figures.two{grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr))}
.pairs{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:22px 40px}
.figures.pair{grid-template-columns:repeat(auto-fit,minmax(min(100%,200px),1fr));gap:22px 14px}
.five{table-layout:fixed}.five th:first-child{width:28%}.five th:nth-child(2){width:24%}.five td{white-space:normal;overflow-wrap:anywhere}
details{margin:0 0 1em;border-top:1px solid var(--rule)}summary{cursor:pointer;padding:.6em 0;font-weight:600}summary small{color:var(--quiet);font-weight:400;margin-left:.5em}
.stacked td small{display:block}
.wide{max-width:600px;margin-bottom:1.4em}
figure{margin:0;min-width:0;max-width:560px}.figures.one figure{max-width:none}figure img{width:100%;height:auto;display:block}
figcaption{font-size:.84rem;color:var(--quiet);margin-top:.5em}figcaption b{color:var(--ink)}
.query{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:clamp(12px,2vw,20px);margin:0 0 18px;display:grid;grid-template-columns:minmax(150px,200px) 1fr;gap:14px 24px}
.query>div{min-width:0}
.subject .cell{margin-bottom:8px}.subject p{margin:.2em 0;font-size:.82rem;color:var(--quiet);overflow-wrap:anywhere}.subject b{color:var(--ink)}
.strip{margin:0 0 12px}.strip h4{margin:0 0 5px;font-size:.8rem;font-weight:600;color:var(--quiet)}
.strip>div{display:grid;grid-template-columns:repeat(5,minmax(0,1fr));gap:8px}
.cell{min-width:0;font-size:.7rem;line-height:1.35;color:var(--quiet);font-variant-numeric:tabular-nums}
.cell img{width:100%;display:block;border-radius:5px;background:#111}
.cell svg{width:100%;display:block;border:1px solid var(--rule);border-radius:5px;background:#fff}
.partner img,.partner svg{outline:2.5px solid var(--image);outline-offset:1px}
.cell img,.cell svg{margin-bottom:4px}
.partner em{color:var(--image);font-style:normal;font-weight:650}
.spectrum .flux{fill:none;stroke:var(--spectrum);stroke-width:1.3;stroke-linejoin:round}
.spectrum .base{stroke:#d4d0c6;fill:none}.spectrum .line{stroke:#d9a58c;stroke-width:.8;stroke-dasharray:3 3;fill:none}
.spectrum text{font:13px system-ui,"DejaVu Sans",sans-serif;fill:#8a8f98;text-anchor:middle}.spectrum .name{fill:#b4613a}
@media(max-width:680px){
 .five{font-size:.76rem}
 .query{grid-template-columns:1fr}.subject{display:grid;grid-template-columns:1fr 1.5fr;gap:4px 12px}.subject p{grid-column:1/-1}
 .strip>div{grid-template-columns:repeat(3,minmax(0,1fr))}.strip.spectra>div{grid-template-columns:repeat(2,minmax(0,1fr))}
}
@media print{nav{display:none}.query,.tile,figure{break-inside:avoid}}
"""
