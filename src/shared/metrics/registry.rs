//! PURE. Which metrics there are, and their text.
#![forbid(unsafe_code)]

use std::fmt::Write;

/// The number of words that all metrics of a process have: what is left of the smallest page behind its row.
pub(crate) const METRIC_WORDS: usize = 352;

/// What a word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number of events, which outlives its process.
    Count,
    /// A sum of values as a floating-point number, which outlives its process.
    Sum,
    /// A floating-point number that ends with its process.
    Gauge,
}

impl Kind {
    /// The word of two processes together. Impossible values count as nothing.
    pub(crate) fn combine(self, one: u64, other: u64) -> u64 {
        let number = |bits| Some(f64::from_bits(bits)).filter(|value| value.is_finite()).unwrap_or(0.0);
        match self {
            Kind::Count => one.saturating_add(other),
            Kind::Sum | Kind::Gauge => (number(one) + number(other)).to_bits(),
        }
    }

    /// Whether the value outlives its process.
    pub(crate) fn is_lasting(self) -> bool {
        self != Kind::Gauge
    }
}

/// The metrics of an application.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    families: Vec<Family>,
    kinds: Vec<Kind>,
}

#[derive(Debug)]
struct Family {
    name: String,
    help: String,
    /// `counter`, `gauge` or `histogram`.
    kind: &'static str,
    bounds: Vec<f64>,
    label_names: Vec<String>,
    /// The rendered labels, and the first word.
    series: Vec<(String, usize)>,
}

type Labels<'a> = [(&'a str, &'a str)];

impl Registry {
    /// Each registers a series, and returns its first word.
    pub(super) fn counter(&mut self, name: &str, help: &str, labels: &Labels<'_>) -> Result<usize, String> {
        if !name.ends_with("_total") {
            return Err(format!("the name of the counter {name} must end in _total"));
        }
        self.add(name, help, "counter", &[], labels, &[Kind::Count])
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, labels: &Labels<'_>) -> Result<usize, String> {
        not_total(name)?;
        self.add(name, help, "gauge", &[], labels, &[Kind::Gauge])
    }

    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[f64],
        labels: &Labels<'_>,
    ) -> Result<usize, String> {
        not_total(name)?;
        let is_rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        if !is_rising || !bounds.iter().all(|bound| bound.is_finite()) {
            return Err(format!("the bounds of the histogram {name} must be finite and rising"));
        }
        // Each bucket, the one beyond the last bound, and the sum.
        let mut kinds = vec![Kind::Count; bounds.len() + 1];
        kinds.push(Kind::Sum);
        self.add(name, help, "histogram", bounds, labels, &kinds)
    }

    fn add(
        &mut self,
        name: &str,
        help: &str,
        kind: &'static str,
        bounds: &[f64],
        labels: &Labels<'_>,
        kinds: &[Kind],
    ) -> Result<usize, String> {
        check(name, labels)?;
        let first = self.kinds.len();
        if first + kinds.len() > METRIC_WORDS {
            return Err(format!("there is no space left for {name}: all metrics together have {METRIC_WORDS} words"));
        }
        let rendered: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value, true))).collect();
        let rendered = rendered.join(",");
        let label_names: Vec<String> = labels.iter().map(|(label, _)| (*label).to_owned()).collect();
        match self.families.iter_mut().find(|family| family.name == name) {
            None => self.families.push(Family {
                name: name.to_owned(),
                help: help.to_owned(),
                kind,
                bounds: bounds.to_vec(),
                label_names,
                series: vec![(rendered, first)],
            }),
            Some(family) if (family.kind, &*family.help, &*family.bounds) != (kind, help, bounds) => {
                return Err(format!("{name} is registered already, as another metric"));
            }
            Some(family) if family.label_names != label_names => {
                return Err(format!("{name} is registered already, with other labels"));
            }
            Some(family) if family.series.iter().any(|(other, _)| *other == rendered) => {
                return Err(format!("{name} is registered already, with the same labels"));
            }
            Some(family) => family.series.push((rendered, first)),
        }
        self.kinds.extend_from_slice(kinds);
        Ok(first)
    }

    pub(super) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Renders these values in the text format of Prometheus, version 0.0.4.
    pub(super) fn render(&self, values: &[u64]) -> String {
        let mut out = String::new();
        let value = |word: usize| values.get(word).copied().unwrap_or(0);
        for Family { name, help, kind, bounds, series, .. } in &self.families {
            // Writing to a string does not fail.
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", escaped(help, false));
            for (labels, first) in series {
                match *kind {
                    "histogram" => histogram(&mut out, name, labels, bounds, &|index| value(first + index)),
                    "gauge" => sample(&mut out, name, labels, &number(value(*first))),
                    _ => sample(&mut out, name, labels, &value(*first).to_string()),
                }
            }
        }
        out
    }
}

fn histogram(out: &mut String, name: &str, labels: &str, bounds: &[f64], value: &dyn Fn(usize) -> u64) {
    let bucket = format!("{name}_bucket");
    let separator = if labels.is_empty() { "" } else { "," };
    let mut count = 0_u64;
    let ends = bounds.iter().map(|bound| format!("{bound}")).chain(["+Inf".to_owned()]);
    for (index, end) in ends.enumerate() {
        count = count.saturating_add(value(index));
        sample(out, &bucket, &format!("{labels}{separator}le=\"{end}\""), &count.to_string());
    }
    sample(out, &format!("{name}_sum"), labels, &number(value(bounds.len() + 1)));
    sample(out, &format!("{name}_count"), labels, &count.to_string());
}

fn sample(out: &mut String, name: &str, labels: &str, value: &str) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

/// A floating-point number; 0 if it is not finite.
fn number(bits: u64) -> String {
    let value = f64::from_bits(bits);
    if value.is_finite() { value } else { 0.0 }.to_string()
}

/// Checks a name and labels by the data model of Prometheus.
fn check(name: &str, labels: &Labels<'_>) -> Result<(), String> {
    let is_name = |name: &str, extra: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || extra.contains(c);
        name.chars().all(is_allowed) && name.chars().next().is_some_and(|c| !c.is_ascii_digit())
    };
    if !is_name(name, ":") {
        return Err(format!("{name:?} is no name of a metric: use letters, digits and underscores"));
    }
    if ["forkpool_", "process_"].iter().any(|own| name.starts_with(own)) {
        return Err(format!(
            "{name} begins as the names of the pool's own metrics; put your application's name in front"
        ));
    }
    for (at, (label, _)) in labels.iter().enumerate() {
        if !is_name(label, "") || label.starts_with("__") || *label == "le" {
            return Err(format!("{label:?} is no name of a label of {name}"));
        }
        if labels[..at].iter().any(|(other, _)| other == label) {
            return Err(format!("{name} has the label {label} twice"));
        }
    }
    Ok(())
}

fn not_total(name: &str) -> Result<(), String> {
    match name.ends_with("_total") {
        true => Err(format!("{name} must not end in _total, since it is no counter")),
        false => Ok(()),
    }
}

/// As the text format wants it.
pub(crate) fn escaped(text: &str, with_quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if with_quotes {
        text.replace('"', "\\\"")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_rendered_for_prometheus() {
        let mut registry = Registry::default();
        let book = registry.counter("shop_orders_total", "Orders.", &[("kind", "book")]);
        let odd = registry.counter("shop_orders_total", "Orders.", &[("kind", "a\"b\\c\n")]);
        let gauge = registry.gauge("shop_queue_jobs", "Jobs\nthat wait.", &[]);
        let seconds = registry.histogram("shop_seconds", "Time.", &[0.5, 1.0], &[("of", "x")]);
        assert_eq!((book, odd, gauge, seconds), (Ok(0), Ok(1), Ok(2), Ok(3)));
        let values = [7, 8, 2.5_f64.to_bits(), 1, 2, 3, 4.25_f64.to_bits()];
        assert_eq!(
            registry.render(&values),
            "# HELP shop_orders_total Orders.\n# TYPE shop_orders_total counter\n\
             shop_orders_total{kind=\"book\"} 7\nshop_orders_total{kind=\"a\\\"b\\\\c\\n\"} 8\n\
             # HELP shop_queue_jobs Jobs\\nthat wait.\n# TYPE shop_queue_jobs gauge\nshop_queue_jobs 2.5\n\
             # HELP shop_seconds Time.\n# TYPE shop_seconds histogram\n\
             shop_seconds_bucket{of=\"x\",le=\"0.5\"} 1\nshop_seconds_bucket{of=\"x\",le=\"1\"} 3\n\
             shop_seconds_bucket{of=\"x\",le=\"+Inf\"} 6\nshop_seconds_sum{of=\"x\"} 4.25\n\
             shop_seconds_count{of=\"x\"} 6\n"
        );
        let nan = [u64::MAX, 0, f64::NAN.to_bits()];
        assert!(registry.render(&nan).contains("shop_queue_jobs 0\n"));
    }

    #[test]
    fn wrong_metrics_are_refused() {
        let mut registry = Registry::default();
        registry.counter("a_total", "A.", &[("b", "c")]).expect("it is the first");
        for (refused, problem) in [
            (registry.counter("a", "A.", &[]), "must end in _total"),
            (registry.gauge("b_total", "B.", &[]), "must not end in _total"),
            (registry.counter("a_total", "Another.", &[("b", "d")]), "as another metric"),
            (registry.counter("a_total", "A.", &[("x", "c")]), "with other labels"),
            (registry.counter("a_total", "A.", &[("b", "c")]), "with the same labels"),
            (registry.counter("1_total", "A.", &[]), "no name of a metric"),
            (registry.counter("a-b_total", "A.", &[]), "no name of a metric"),
            (registry.gauge("forkpool_mine", "A.", &[]), "pool's own"),
            (registry.gauge("b", "A.", &[("le", "c")]), "no name of a label"),
            (registry.gauge("b", "A.", &[("c", "d"), ("c", "e")]), "twice"),
            (registry.histogram("b", "A.", &[1.0, 1.0], &[]), "finite and rising"),
            (registry.histogram("b", "A.", &[f64::INFINITY], &[]), "finite and rising"),
            (registry.histogram("b", "A.", &[0.0; METRIC_WORDS], &[]), "finite and rising"),
        ] {
            assert!(refused.as_ref().is_err_and(|found| found.contains(problem)), "{refused:?} {problem}");
        }
        for number in 1..METRIC_WORDS {
            registry.gauge("c", "C.", &[("n", &number.to_string())]).expect("there is space");
        }
        assert!(registry.gauge("d", "D.", &[]).is_err_and(|found| found.contains("no space left")));
    }

    #[test]
    fn words_combine_by_their_kind() {
        assert_eq!(Kind::Count.combine(u64::MAX, 1), u64::MAX);
        let two = |kind: Kind, one: f64, other: f64| f64::from_bits(kind.combine(one.to_bits(), other.to_bits()));
        assert_eq!((two(Kind::Sum, 0.5, 1.0), two(Kind::Gauge, f64::NAN, -2.0)), (1.5, -2.0));
        assert!(Kind::Count.is_lasting() && Kind::Sum.is_lasting() && !Kind::Gauge.is_lasting());
    }
}
