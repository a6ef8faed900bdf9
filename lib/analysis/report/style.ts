import { HEAT_LEVELS, heatColours, PHASE_COLOURS } from './palette.js';

const LIGHT = {
  paper: '#faf8f3',
  card: '#fffefb',
  ink: '#1c1f25',
  soft: '#5b606a',
  rule: '#e3ded3',
  grid: '#ebe7dd',
  accent: '#c2410c',
  bracket: '#d9400b',
  band: '#f6e3d6',
  alone: '#e4e0d6',
  grouped: '#c2410c',
  'on-grouped': '#ffffff',
  sequential: '#1c1f25',
  searched: '#0072b2',
  good: '#00664a',
};
const DARK: typeof LIGHT = {
  paper: '#121419',
  card: '#191c22',
  ink: '#ece9e2',
  soft: '#a5a9b2',
  rule: '#2d3139',
  grid: '#262a31',
  accent: '#ff9457',
  bracket: '#ff5a7a',
  band: '#33261f',
  alone: '#343943',
  grouped: '#ff9457',
  'on-grouped': '#16181d',
  sequential: '#ece9e2',
  searched: '#63b8ec',
  good: '#4fd0a5',
};

function variables(theme: 'light' | 'dark'): string {
  const named = Object.entries(theme === 'light' ? LIGHT : DARK).map(([name, value]) => `--${name}:${value}`);
  return [...named, ...heatColours(theme).map((colour, level) => `--h${level}:${colour}`)].join(';');
}

/** The style of the page; colours follow the reader's preference. */
export const STYLE = `:root{color-scheme:light dark;${variables('light')}}
@media (prefers-color-scheme:dark){:root{${variables('dark')}}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main,header,footer{max-width:1144px;margin:0 auto;padding:0 clamp(16px,4vw,36px)}
header{padding-top:clamp(28px,6vw,68px)}
.eyebrow{margin:0 0 14px;font-size:13px;letter-spacing:.08em;text-transform:uppercase;color:var(--soft)}
.eyebrow b{color:var(--accent);font-weight:650}
h1{margin:0;max-width:24em;font:600 clamp(26px,4.1vw,44px)/1.16 ui-serif,"Iowan Old Style",Charter,Georgia,Cambria,serif;letter-spacing:-.012em;text-wrap:balance;overflow-wrap:anywhere}
.lede{max-width:46em;margin:18px 0 0;color:var(--soft);text-wrap:pretty;overflow-wrap:anywhere}
.caution{color:var(--accent)}
.tiles{display:flex;flex-wrap:wrap;gap:1px;margin:34px 0 0;padding:0;list-style:none;background:var(--rule);border:1px solid var(--rule);border-radius:12px;overflow:hidden}
.tiles li{flex:1 1 150px;background:var(--card);padding:16px 18px}
.tiles b{display:block;font:600 27px/1.2 ui-serif,"Iowan Old Style",Charter,Georgia,Cambria,serif}
.tiles span{display:block;margin-top:4px;font-size:13px;line-height:1.35;color:var(--soft)}
section{margin-top:clamp(44px,7vw,76px)}
h2{margin:0 0 18px;font:600 clamp(21px,2.6vw,27px)/1.2 ui-serif,"Iowan Old Style",Charter,Georgia,Cambria,serif}
figure{margin:0 0 22px;padding:18px;background:var(--card);border:1px solid var(--rule);border-radius:12px;min-width:0}
figcaption{margin-top:12px;font-size:14px;line-height:1.5;color:var(--soft);max-width:62em;overflow-wrap:anywhere}
figcaption b{color:var(--ink)}
svg{display:block;width:100%;height:auto;font-size:12px}
.scroll{overflow-x:auto;max-width:100%;-webkit-overflow-scrolling:touch}
.scroll svg{width:auto;max-width:none}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:22px}
.pair figure{margin:0}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 12px;padding:0;list-style:none;font-size:13px;color:var(--soft)}
.legend~.legend,svg~.legend{margin-top:14px}
.swatch{display:inline-block;width:11px;height:11px;margin-right:7px;border-radius:3px;vertical-align:-1px}
table{border-collapse:collapse;font-size:13.5px;width:100%}
.caption{margin:28px 0 8px;max-width:62em;color:var(--soft);font-size:13px;overflow-wrap:anywhere}
th,td{padding:7px 0 7px 15px;border-top:1px solid var(--rule);text-align:right;white-space:nowrap;font-weight:400}
thead th{border-top:0;color:var(--soft);font-size:12.5px;line-height:1.3;vertical-align:bottom;white-space:normal}
th:first-child{text-align:left;padding-left:0}
tbody th{font-weight:600}
.badge{padding:1px 8px;border:1px solid currentColor;border-radius:99px;font-size:12px}
.lossy{color:var(--accent)}
.lossless{color:var(--good)}
details{margin-top:14px}
summary{cursor:pointer;color:var(--soft);font-size:14px;margin-bottom:12px}
footer{margin-top:64px;padding-top:26px;padding-bottom:56px;font-size:13px;color:var(--soft)}
footer dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:5px 20px;margin:0;border-top:1px solid var(--rule);padding-top:22px}
dt{color:var(--soft)}
dd{margin:0;color:var(--ink);overflow-wrap:anywhere}
code{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
text{fill:var(--ink)}
.tick,.axis,.soft{fill:var(--soft)}
.tick{font-size:11.5px}
.axis{font-size:12px}
.small{font-size:11.5px}
.label{font-size:13.5px;font-weight:600}
.label .soft{font-weight:400}
.point{font-size:12px;font-weight:600;paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
.grid{stroke:var(--grid);fill:none}
.wire{stroke:var(--soft);stroke-width:1.5;fill:none}
.saved{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:2 6;stroke-linecap:round;fill:none}
.bracket{fill:none;stroke:var(--bracket);stroke-width:2.2}
.halo{fill:none;stroke:var(--card);stroke-width:4.4;opacity:.7}
.band{fill:var(--band)}
.line{fill:none;stroke-width:1.8}
.front{fill:none;stroke:var(--soft);stroke-dasharray:3 4}
.bar{fill:none;stroke-width:1.3;opacity:.75}
.middle{fill:none;stroke-width:6;opacity:.3}
.b-sequential{stroke:var(--sequential)}.b-measured{stroke:var(--accent)}.b-searched{stroke:var(--searched)}
.m-sequential{fill:var(--sequential);background:var(--sequential)}
.m-measured{fill:var(--accent);background:var(--accent)}
.m-searched{fill:var(--card);stroke:var(--searched);stroke-width:2;background:var(--card);border:2px solid var(--searched)}
.swatch.m-searched,.swatch.m-measured{border-radius:99px}
.swatch.m-sequential{transform:rotate(45deg) scale(.85);border-radius:1px}
.k-accent{fill:var(--accent);background:var(--accent)}.s-accent{stroke:var(--accent)}
.k-alone{fill:var(--alone);background:var(--alone)}
.k-grouped{fill:var(--grouped);background:var(--grouped)}
.on-alone,.on-grouped{font-size:11.5px}
.on-grouped{fill:var(--on-grouped);font-weight:600}
${PHASE_COLOURS.map(([kind, fill, text]) => `.k-${kind}{fill:${fill};background:${fill}}.s-${kind}{stroke:${fill}}.on-${kind}{fill:${text};font-size:11.5px}`).join('\n')}
${Array.from({ length: HEAT_LEVELS }, (_, level) => `.h${level}{fill:var(--h${level})}`).join('')}
@media (prefers-color-scheme:dark){.k-down{fill:#3a9be0;background:#3a9be0}.s-down{stroke:#3a9be0}.on-down{fill:#14161a}}
@media (max-width:560px){figure{padding:14px 12px}.tiles li{flex-basis:130px;padding:13px 14px}.tiles b{font-size:23px}footer dl{grid-template-columns:minmax(0,1fr);gap:0}dd{margin-bottom:9px}}
@media print{body{background:#fff}figure{break-inside:avoid}}
`;
