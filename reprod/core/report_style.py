"""The style of the report page: light and dark, from a phone to a wide screen, and on paper.

Rule: system fonts, two scales (four sizes of text, steps of 4 px), one colour for data, three for verdicts; contrast of
text is 4.5 to 1 at least in both schemes. Nothing is fetched and nothing moves.
"""

#: Light colours, and what differs in the dark. Verdicts have a colour for text and one for areas.
_COLOURS = """
:root{color-scheme:light dark;
--page:#fff;--soft:#f5f6f8;--line:#dfe3e8;--text:#1c2430;--dim:#5a6472;--bar:#3b74c9;--rest:#a9b4c2;
--good:#1a7442;--good-area:#e6f4ec;--warn:#8a5300;--warn-area:#fdf3df;--bad:#b3261e;--bad-area:#fcebea;
--quiet:#4d5968;--quiet-area:#f0f2f5}
@media (prefers-color-scheme:dark){:root{
--page:#14181f;--soft:#1c222b;--line:#323b48;--text:#e4e8ee;--dim:#9ba6b4;--bar:#6ea3f0;--rest:#566272;
--good:#6fd39b;--good-area:#16301f;--warn:#f0b955;--warn-area:#35280f;--bad:#ff8f86;--bad-area:#3c1a18;
--quiet:#aab4c1;--quiet-area:#222933}}
"""

_TEXT = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 20px 40px}
h1{font-size:24px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:19px;line-height:1.3;margin:0 0 12px}
h3{font-size:15px;margin:20px 0 8px}
p{margin:0 0 8px;max-width:72ch}
.dim,.note,caption,th,dt{color:var(--dim)}
.dim{font-size:13px}
.kind{font-size:13px;color:var(--dim);margin:0 0 4px}
code,pre,.name{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px}
h1 .name,h3 .name{font:inherit}
bdi{overflow-wrap:anywhere;unicode-bidi:isolate}
.name{display:inline-block;max-width:100%;overflow:hidden;vertical-align:bottom}
pre{margin:0 0 12px;padding:12px;background:var(--soft);border:1px solid var(--line);border-radius:6px;
white-space:pre-wrap;overflow-wrap:anywhere}
section{border-top:1px solid var(--line);padding:24px 0 12px}
details{margin:8px 0 12px}
summary{cursor:pointer;color:var(--dim)}
ul{margin:0 0 12px;padding-left:20px}
"""

_PARTS = """
.tiles{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:12px;margin:20px 0 28px}
.tile{border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:17px;line-height:1.3;margin:2px 0 4px}
.tile p{font-size:13px;line-height:1.4;margin:0}
.tile .kind{font-size:13px}
.good b,.pill.good,dd .good{color:var(--good)}.warn b,.pill.warn{color:var(--warn)}
.bad b,.pill.bad{color:var(--bad)}.quiet b,.pill.quiet{color:var(--quiet)}
.tile.good,.callout.good,.pill.good{background:var(--good-area)}
.tile.warn,.callout.warn,.pill.warn{background:var(--warn-area)}
.tile.bad,.callout.bad,.pill.bad{background:var(--bad-area)}
.tile.quiet,.callout.quiet,.pill.quiet{background:var(--quiet-area)}
.pill{display:inline-block;border-radius:10px;padding:0 8px;font-size:13px;font-weight:600;white-space:nowrap}
.callout{border-radius:8px;padding:12px 14px;margin:0 0 16px}
.callout p:last-child{margin:0}
dl{display:grid;grid-template-columns:minmax(90px,max-content) minmax(0,1fr);gap:4px 16px;margin:0 0 16px}
dd{margin:0;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;margin:0 0 16px;font-size:14px}
th,td{text-align:left;padding:4px 12px 4px 0;vertical-align:top;overflow-wrap:anywhere}
thead th{font-size:13px;font-weight:600;white-space:nowrap;border-bottom:1px solid var(--line)}
tbody tr+tr>*{border-top:1px solid var(--line)}
.amount,.note{white-space:nowrap;text-align:right;font-variant-numeric:tabular-nums}
.note{font-size:13px}
.files td:first-child{width:1%;white-space:nowrap}.files td:last-child{width:1%;white-space:nowrap;text-align:right}
.files th:last-child{text-align:right}
td:last-child,th:last-child{padding-right:0}
"""

_PICTURES = """
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:12px 40px}
.picture{table-layout:fixed;align-self:start}
.picture caption{text-align:left;font-size:13px;font-weight:600;padding-bottom:4px;border-bottom:1px solid var(--line)}
.picture th{font-weight:400;color:var(--text);width:27%;padding-right:10px}
.picture.wide th{width:58%}
.picture .bar{padding-right:10px}
.picture .amount{width:104px;padding-right:12px}
.picture .note{width:96px}
.picture tbody tr+tr>*{border:0}
svg{display:block;width:100%;height:12px;margin-top:6px}
rect{fill:var(--bar)}
rect.rest{fill:var(--rest)}
.strip{height:8px;margin:4px 0 12px}
rect.added{fill:var(--good)}rect.removed{fill:var(--bad)}rect.modified{fill:var(--warn)}rect.renamed{fill:var(--bar)}
.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:6px}
.key.added{background:var(--good)}.key.removed{background:var(--bad)}.key.modified{background:var(--warn)}
.key.renamed{background:var(--bar)}
.packages{columns:auto 220px;font-size:13px}
.counts span{margin-right:20px;white-space:nowrap}
"""

_NARROW = """
@media (max-width:820px){.tiles{grid-template-columns:repeat(2,minmax(0,1fr))}}
@media (max-width:560px){
main{padding:16px 14px 28px}
.tiles{grid-template-columns:1fr;gap:8px;margin:16px 0 20px}
dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:8px}
dt{font-size:13px}
.rows thead{display:none}
.rows,.rows tbody,.rows tr,.rows td{display:block;width:100%}
.rows tr{padding:8px 0;border-top:1px solid var(--line)}
.rows tbody tr+tr>*{border:0}
.rows td:empty{display:none}
.rows td,.files td:last-child{padding:1px 0;text-align:left;white-space:normal;width:100%}
.rows td[data-of]:not([data-of=""])::before{content:attr(data-of) " ";color:var(--dim);font-size:13px}
.picture.narrow th{width:38%}
.picture .note{display:none}
.picture .amount{width:84px;padding-right:0}
}
"""

_PAPER = """
@media print{
:root{--page:#fff;--soft:#fff;--line:#bbb;--text:#000;--dim:#444;--bar:#3b74c9;--rest:#a9b4c2;--good:#1a7442;
--warn:#8a5300;--bad:#b3261e;--quiet:#444;--good-area:#fff;--warn-area:#fff;--bad-area:#fff;--quiet-area:#fff}
body{font-size:11pt}
main{max-width:none;padding:0}
section{padding:16px 0 4px}
.tile,.picture,tr,pre,.callout{break-inside:avoid}
h2,h3,caption{break-after:avoid}
.callout,.pill{border:1px solid var(--line)}
.key{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""

STYLE = _COLOURS + _TEXT + _PARTS + _PICTURES + _NARROW + _PAPER
