"""Lines over named places, a panel for each thing that is varied, as an SVG for light and dark grounds."""

import math

# Name: colours that differ in lightness too, on a light ground and on a dark one; and the dashes.
STROKES = {
    "forkpool": ("#c4511d", "#f08c5a", "none"),
    "raw": ("#57606a", "#a8b1bb", "6 3"),
    "may": ("#15803d", "#5ad68a", "none"),
    "hyper": ("#0369a1", "#4fb3f6", "none"),
    "eBPF": ("#c4511d", "#f08c5a", "none"),
    "random": ("#0369a1", "#4fb3f6", "none"),
    "off": ("#57606a", "#a8b1bb", "6 3"),
    "nginx": ("#7e3fb8", "#c9a0f5", "2 3"),
}
# For servers without one of their own.
OTHER = ("#b45309", "#fbbf4d", "8 3 2 3")
# Pixels.
LEFT, TOP, WIDTH, HEIGHT, BELOW, GAP = 80, 80, 360, 260, 90, 80


class Panel:
    """`curves` is by name what it is at each of the places, or None."""

    def __init__(self, title, places, axis, curves):
        self.title, self.places, self.axis, self.curves = title, places, axis, curves


def svg(title, unit, panels, is_logarithmic=False):
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    of_legend = lambda name: 60 + 7 * len(name)
    width = LEFT + max((WIDTH + GAP) * len(panels) - GAP // 2, sum(map(of_legend, names)))
    height = TOP + HEIGHT + BELOW
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">']
    out += [f"<title>{title}</title>", style(names), f'<rect class="ground" width="{width}" height="{height}"/>']
    out.append(text("title", LEFT, 30, "start", title))
    for index, panel in enumerate(panels):
        out += draw(panel, LEFT + (WIDTH + GAP) * index, unit, is_logarithmic)
    x = LEFT
    for name in names:
        out.append(f'<path class="line {name}" d="M{x} {height - 24}h28"/>')
        out.append(text("", x + 34, height - 20, "start", name))
        x += of_legend(name)
    return "\n".join([*out, "</svg>"]) + "\n"


def draw(panel, left, unit, is_logarithmic):
    values = [value for curve in panel.curves.values() for value in curve if value is not None]
    marks = decades(values) if is_logarithmic else steps(values)
    scale = math.log10 if is_logarithmic else float
    low, high, bottom = scale(marks[0]), scale(marks[-1]), TOP + HEIGHT
    y = lambda value: bottom - HEIGHT * (scale(max(value, marks[0])) - low) / (high - low)
    x = lambda index: left + WIDTH * (index + 0.25) / max(len(panel.places) - 0.5, 1)
    out = [text("axis", left + WIDTH / 2, TOP - 14, "middle", panel.title)]
    for mark in marks:
        out.append(f'<path class="grid" d="M{left} {y(mark):.1f}H{left + WIDTH}"/>')
        out.append(text("", left - 8, y(mark) + 4, "end", f"{mark:g} {unit}"))
    for index, place in enumerate(panel.places):
        out.append(text("", x(index), bottom + 18, "middle", place))
    out.append(text("axis", left + WIDTH / 2, bottom + 38, "middle", panel.axis))
    for name, curve in panel.curves.items():
        points = [(x(index), y(value)) for index, value in enumerate(curve) if value is not None]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polyline class="line {name}" points="{line}"/>')
        out += [f'<circle class="line {name}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points]
    return out


def text(kind, x, y, anchor, words):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def style(names):
    light = ".ground{fill:#fff}.grid{stroke:#d0d7de}text{fill:#57606a}.axis,.title{fill:#1f2328}"
    dark = ".ground{fill:#0d1117}.grid{stroke:#30363d}text{fill:#9198a1}.axis,.title{fill:#f0f6fc}"
    for name in names:
        on_light, on_dark, dashes = STROKES.get(name, OTHER)
        light += f".{name}{{stroke:{on_light};stroke-dasharray:{dashes}}}"
        dark += f".{name}{{stroke:{on_dark}}}"
    fonts = "text{font:12px system-ui,sans-serif}.axis{font-size:13px}.title{font-size:16px;font-weight:600}"
    lines = ".line{fill:none;stroke-width:2}circle.line{stroke-dasharray:none}"
    return f"<style>{fonts}{lines}{light}@media(prefers-color-scheme:dark){{{dark}}}</style>"


def decades(values):
    """Powers of ten around all of them."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def steps(values):
    """From 0 to beyond the largest, in at most six steps that are easy to read."""
    power = 10 ** math.floor(math.log10(max(values)))
    step = next(step for step in (power / 5, power / 2, power, power * 2) if max(values) <= 6 * step)
    return [step * index for index in range(math.ceil(max(values) / step) + 1)]
