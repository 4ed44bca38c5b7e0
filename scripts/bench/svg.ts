/** Charts of lines, side by side in one SVG that is legible on light and on dark pages. */
import { ticksOf, toScale } from './axis.ts';
import type { Axis } from './axis.ts';
import type { Series } from './report.ts';

interface Chart {
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
}

const CHARTS: Readonly<Record<Series['chart'], Chart>> = {
  'hand-over': {
    title: 'Hand-over: end of one command to start of the next',
    x: { label: '% of hand-overs that take no longer', log: false },
    y: { label: 'ms', log: true },
  },
  requests: {
    title: 'Requests to Consul for one run',
    x: { label: 'waiting', log: true, chosen: true },
    y: { label: 'requests', log: true },
  },
};

const WIDTH = 440;
const HEIGHT = 340;
const plot = { left: 56, right: WIDTH - 18, top: 102, bottom: HEIGHT - 44 };

/** Colours of Okabe and Ito, told apart by people who see few; lighter ones for dark pages. */
const style = `
text { font: 12px system-ui, sans-serif; fill: #3b4148 }
.title { font-weight: 600; fill: #1f2328 }
.page { fill: #ffffff; stroke: #d1d9e0 }
.grid { stroke: #e4e8ec }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.c0 { stroke: #0072b2 } .c1 { stroke: #d55e00 } .c2 { stroke: #008a63 } .c3 { stroke: #a4548a }
.d1 { stroke-dasharray: 7 3 } .d2 { stroke-dasharray: 2 3 } .d3 { stroke-dasharray: 9 3 2 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #b8c0c8 }
  .title { fill: #f0f6fc }
  .page { fill: #0d1117; stroke: #3d444d }
  .grid { stroke: #2a3038 }
  .c0 { stroke: #56b4e9 } .c1 { stroke: #ff9a4d } .c2 { stroke: #2fcf9f } .c3 { stroke: #e39bc9 }
}
`;

/** One chart for each kind of series that is there. */
export function draw(series: readonly Series[]): string {
  const kinds = (Object.keys(CHARTS) as Series['chart'][]).filter((kind) =>
    series.some(({ chart }) => chart === kind),
  );
  const width = Math.max(1, kinds.length) * WIDTH;
  const charts = kinds.map((kind, i) => {
    const own = series.filter(({ chart }) => chart === kind);
    return `<g transform="translate(${i * WIDTH} 0)">\n${drawChart(CHARTS[kind], own)}\n</g>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${HEIGHT}" width="${width}" height="${HEIGHT}" role="img">
<title>${escape(kinds.map((kind) => CHARTS[kind].title).join('; '))}</title>
<style>${style}</style>
<rect class="page" x="0.5" y="0.5" width="${width - 1}" height="${HEIGHT - 1}" rx="6"/>
${charts.join('\n')}
</svg>
`;
}

function drawChart({ title, x, y }: Chart, series: readonly Series[]): string {
  const points = series.flatMap((one) => one.points);
  const xs = points.map(([value]) => value);
  const ys = points.map(([, value]) => value);
  const toX = toScale(x, xs, [plot.left, plot.right]);
  const toY = toScale(y, ys, [plot.bottom, plot.top]);
  const lines = series.map(({ points: own }, i) => {
    const path = own.map(([px, py]) => `${toX(px).toFixed(1)},${toY(py).toFixed(1)}`).join(' ');
    return `<polyline class="line c${i % 4} d${i % 4}" points="${path}"/>`;
  });
  return [
    `<text class="title" x="16" y="26">${escape(title)}</text>`,
    ...series.map(({ name }, i) => legend(name, i)),
    ...ticksOf(y, ys).map((tick) => horizontal(tick, toY(tick))),
    ...ticksOf(x, xs).map((tick) => label(tick, toX(tick))),
    `<text x="16" y="${plot.top - 10}">${escape(y.label)}</text>`,
    `<text x="${(plot.left + plot.right) / 2}" y="${HEIGHT - 10}" text-anchor="middle">${escape(x.label)}</text>`,
    ...lines,
  ].join('\n');
}

/** Two a line. */
function legend(name: string, i: number): string {
  const [left, middle] = [16 + (i % 2) * 206, 46 + Math.floor(i / 2) * 18];
  return `<path class="line c${i % 4} d${i % 4}" d="M${left} ${middle}h26"/><text x="${left + 32}" y="${middle + 4}">${escape(name)}</text>`;
}

function horizontal(tick: number, at: number): string {
  return `<path class="grid" d="M${plot.left} ${at.toFixed(1)}H${plot.right}"/><text x="${plot.left - 8}" y="${(at + 4).toFixed(1)}" text-anchor="end">${tick.toLocaleString('en-GB')}</text>`;
}

function label(tick: number, at: number): string {
  return `<text x="${at.toFixed(1)}" y="${plot.bottom + 18}" text-anchor="middle">${tick.toLocaleString('en-GB')}</text>`;
}

const escape = (text: string) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
