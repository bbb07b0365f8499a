//! Latencies as a drawing: a panel for each pool, a line for each method, over the part of the requests that are no
//! slower. The axis of the latencies is logarithmic: what matters is how many times longer the tail is.

use std::fmt::Write;

/// One pool.
#[derive(Debug)]
pub(crate) struct Panel {
    title: String,
    pub(crate) curves: Vec<Curve>,
}

impl Panel {
    pub(crate) fn new(title: String) -> Panel {
        Panel { title, curves: Vec::new() }
    }
}

/// One method.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) method: &'static str,
    /// Milliseconds, in the order of [`crate::LATENCIES`].
    pub(crate) points: Vec<f64>,
}

/// Colours that differ in lightness too, on a light ground and on a dark one; and the dashes.
const STROKES: [(&str, &str, &str, &str); 7] = [
    ("plain", "#c9184a", "#ff758f", "none"),
    ("hash", "#b5651d", "#e8b07a", "6 3"),
    ("random", "#0369a1", "#4fb3f6", "none"),
    ("least-connections", "#15803d", "#5ad68a", "none"),
    ("cpu", "#b45309", "#fbbf4d", "6 3"),
    ("client", "#7e3fb8", "#c9a0f5", "2 3"),
    ("shared", "#57606a", "#a8b1bb", "8 3 2 3"),
];

// Pixels.
const LEFT: f64 = 70.0;
const TOP: f64 = 80.0;
const PLOT: (f64, f64) = (360.0, 280.0);
const BELOW: f64 = 90.0;
const GAP: f64 = 70.0;
/// What the title and the legend need.
const WIDTH_MIN: f64 = 760.0;

pub(crate) fn svg(title: &str, panels: &[Panel]) -> String {
    let (low, high) = decades(panels);
    let width = (LEFT + (PLOT.0 + GAP) * panels.len() as f64 - GAP / 2.0).max(WIDTH_MIN);
    let height = TOP + PLOT.1 + BELOW;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<title>{title}</title>\n{}<rect class=\"ground\" width=\"{width}\" \
         height=\"{height}\"/>\n",
        style()
    );
    text(&mut out, "title", (LEFT, 30.0), "start", title);
    let middle = TOP + PLOT.1 / 2.0;
    let _ = writeln!(
        out,
        "<text class=\"axis\" transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">latency</text>"
    );
    for (index, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, LEFT + (PLOT.0 + GAP) * index as f64, (low, high));
    }
    legend(&mut out, panels, height - 20.0);
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, left: f64, (low, high): (i32, i32)) {
    let bottom = TOP + PLOT.1;
    let y = |value: f64| bottom - PLOT.1 * (value.log10() - f64::from(low)) / f64::from(high - low);
    let x = |index: usize| left + PLOT.0 * (index as f64 + 0.25) / (crate::LATENCIES.len() as f64 - 0.5);
    text(out, "axis", (left + PLOT.0 / 2.0, TOP - 14.0), "middle", &panel.title);
    for decade in low..=high {
        let value = 10_f64.powi(decade);
        let (right, at) = (left + PLOT.0, y(value));
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{left:.1} {at:.1}H{right:.1}\"/>");
        let label = if decade < 3 { format!("{value} ms") } else { format!("{} s", value / 1e3) };
        text(out, "", (left - 8.0, at + 4.0), "end", &label);
    }
    for (index, name) in crate::LATENCIES.iter().enumerate() {
        text(out, "", (x(index), bottom + 18.0), "middle", name);
    }
    text(out, "axis", (left + PLOT.0 / 2.0, bottom + 38.0), "middle", "percentile of the fast requests");
    for curve in &panel.curves {
        let at: Vec<_> = curve.points.iter().enumerate().map(|(index, value)| (x(index), y(floor(*value)))).collect();
        let line: Vec<_> = at.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(out, "<polyline class=\"line {}\" points=\"{}\"/>", curve.method, line.join(" "));
        for (x, y) in at {
            let _ = writeln!(out, "<circle class=\"line {}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>", curve.method);
        }
    }
}

/// The methods that were measured, each once.
fn legend(out: &mut String, panels: &[Panel], y: f64) {
    let mut x = LEFT;
    for (name, ..) in STROKES {
        if panels.iter().any(|panel| panel.curves.iter().any(|curve| curve.method == name)) {
            let _ = writeln!(out, "<path class=\"line {name}\" d=\"M{x:.1} {:.1}h28\"/>", y - 4.0);
            text(out, "", (x + 34.0, y), "start", name);
            x += 60.0 + 7.0 * name.len() as f64;
        }
    }
}

fn text(out: &mut String, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn style() -> String {
    let mut light = ".ground{fill:#fff}.grid{stroke:#d0d7de}text{fill:#57606a}.axis,.title{fill:#1f2328}".to_owned();
    let mut dark = ".ground{fill:#0d1117}.grid{stroke:#30363d}text{fill:#9198a1}.axis,.title{fill:#f0f6fc}".to_owned();
    for (name, on_light, on_dark, dashes) in STROKES {
        let _ = write!(light, ".{name}{{stroke:{on_light};stroke-dasharray:{dashes}}}");
        let _ = write!(dark, ".{name}{{stroke:{on_dark}}}");
    }
    format!(
        "<style>text{{font:12px system-ui,sans-serif}}.axis{{font-size:13px}}.title{{font-size:16px;font-weight:600}}\
         .line{{fill:none;stroke-width:2}}circle.line{{stroke-dasharray:none}}{light}\
         @media(prefers-color-scheme:dark){{{dark}}}</style>\n"
    )
}

/// The powers of ten, in milliseconds, between which all points are.
fn decades(panels: &[Panel]) -> (i32, i32) {
    let points = || panels.iter().flat_map(|panel| &panel.curves).flat_map(|curve| &curve.points);
    let low = points().copied().fold(1.0, |low, value| floor(value).min(low)).log10().floor();
    let high = points().copied().fold(10.0, f64::max).log10().ceil();
    (low as i32, high as i32)
}

/// A logarithm has no zero; a microsecond is the least that is measured.
fn floor(value: f64) -> f64 {
    value.max(0.001)
}
