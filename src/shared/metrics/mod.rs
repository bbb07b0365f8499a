//! The application's own metrics: registered before the fork, counted in the worker's shared page, shown by the admin
//! process.
//!
//! - `registry.rs` (PURE): which metrics there are, which words of a page belong to which, how words of several
//!   processes combine, and the text format of Prometheus

mod registry;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub(crate) use self::registry::{escaped, Kind, Registry, METRIC_WORDS};
use crate::sys::shared::Page;

/// The application's own metrics. Register them before the pool starts, and pass them to
/// [`Builder::metrics`](crate::Builder::metrics); `/metrics` of the admin process then shows them with those of the
/// pool.
///
/// Counters and histograms are summed over all workers, also those that have died, so they never go back. Gauges are
/// summed over the living workers. Each worker counts in its own page of shared memory, so counting needs no message
/// and no lock. All metrics together have 352 words: a counter or a gauge takes one for each combination of labels, a
/// histogram takes two more than it has bounds.
///
/// Names follow the conventions of Prometheus: letters, digits and underscores, with the application's name in front
/// and the unit at the end (`shop_query_seconds`); counters end in `_total`. Names that begin with `forkpool_` or
/// `process_` are the pool's.
///
/// ```no_run
/// use std::time::Instant;
///
/// use forkpool::{Metrics, Pool};
///
/// fn main() -> forkpool::Result<()> {
///     let metrics = Metrics::new();
///     let books = metrics.counter_with("shop_orders_total", "Orders placed.", &[("kind", "book")]);
///     let records = metrics.counter_with("shop_orders_total", "Orders placed.", &[("kind", "record")]);
///     let seconds = metrics.histogram("shop_order_seconds", "Time to place an order.", &[0.001, 0.01, 0.1, 1.0]);
///     Pool::bind("127.0.0.1:8000").admin("127.0.0.1:9000").metrics(&metrics).serve(|request| {
///         let began = Instant::now();
///         if request.path() == "/book" { &books } else { &records }.increment();
///         seconds.observe(began.elapsed().as_secs_f64());
///         "ordered\n"
///     })
/// }
/// ```
///
/// Outside of a pool, as in a unit test, the values are those of the process.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    registry: Mutex<Registry>,
    words: Words,
}

/// Where this process counts.
#[derive(Debug)]
struct Words {
    /// The page of this process, if it is a worker.
    page: OnceLock<MetricPage>,
    own: Box<[AtomicU64]>,
}

/// The part of a worker's page that belongs to the metrics.
#[derive(Clone, Debug)]
pub(crate) struct MetricPage {
    page: Page,
    first: usize,
}

impl MetricPage {
    /// The words of the page from `first` on.
    pub(crate) fn new(page: Page, first: usize) -> MetricPage {
        MetricPage { page, first }
    }

    fn words(&self) -> &[AtomicU64; METRIC_WORDS] {
        self.page.words()[self.first..].first_chunk().expect("a page has room for a row")
    }
}

impl Default for Words {
    fn default() -> Words {
        Words { page: OnceLock::new(), own: (0..METRIC_WORDS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Words {
    fn at(&self, index: usize) -> &AtomicU64 {
        match self.page.get() {
            Some(page) => &page.words()[index],
            None => &self.own[index],
        }
    }
}

impl Metrics {
    /// Makes an empty set of metrics.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Registers a counter, which only grows.
    ///
    /// # Panics
    ///
    /// If the name is malformed, does not end in `_total`, or is taken; if there is no space left; and in a worker,
    /// which cannot register metrics.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.counter_with(name, help, &[])
    }

    /// As [`counter`](Metrics::counter), with labels. The same name may be registered again with other values of the
    /// same labels and the same help text.
    ///
    /// # Panics
    ///
    /// As [`counter`](Metrics::counter), and if a label is malformed.
    pub fn counter_with(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        Counter(self.series(|registry| registry.counter(name, help, labels)))
    }

    /// Registers a gauge, which goes up and down. `/metrics` shows the sum over the living workers.
    ///
    /// # Panics
    ///
    /// If the name is malformed, ends in `_total`, or is taken; if there is no space left; and in a worker.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.gauge_with(name, help, &[])
    }

    /// As [`gauge`](Metrics::gauge), with labels, as in [`counter_with`](Metrics::counter_with).
    ///
    /// # Panics
    ///
    /// As [`gauge`](Metrics::gauge), and if a label is malformed.
    pub fn gauge_with(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        Gauge(self.series(|registry| registry.gauge(name, help, labels)))
    }

    /// Registers a histogram with the upper bounds of its buckets, in rising order; a last bucket has all values
    /// beyond.
    ///
    /// # Panics
    ///
    /// If the name is malformed, ends in `_total`, or is taken; if the bounds are not finite and rising; if there is no
    /// space left; and in a worker.
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.histogram_with(name, help, bounds, &[])
    }

    /// As [`histogram`](Metrics::histogram), with labels, as in [`counter_with`](Metrics::counter_with).
    ///
    /// # Panics
    ///
    /// As [`histogram`](Metrics::histogram), and if a label is malformed.
    pub fn histogram_with(&self, name: &str, help: &str, bounds: &[f64], labels: &[(&str, &str)]) -> Histogram {
        let series = self.series(|registry| registry.histogram(name, help, bounds, labels));
        Histogram { series, bounds: bounds.into() }
    }

    fn series(&self, register: impl FnOnce(&mut Registry) -> Result<usize, String>) -> Series {
        let mut registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(self.0.words.page.get().is_none(), "metrics are registered before the pool starts, not in a worker");
        match register(&mut registry) {
            Ok(first) => Series { shared: Arc::clone(&self.0), first },
            Err(problem) => panic!("{problem}"),
        }
    }

    /// From now on, this process counts in its page. Runs once in each worker.
    pub(crate) fn attach(&self, page: MetricPage) {
        // Only the first call has an effect.
        let _ = self.0.words.page.set(page);
    }

    /// The kind of each word that is in use.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner).kinds().to_vec()
    }

    /// Renders these values of all words in the text format of Prometheus.
    pub(crate) fn render(&self, values: &[u64]) -> String {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner).render(values)
    }
}

/// The words of a metric with its labels.
#[derive(Clone, Debug)]
struct Series {
    shared: Arc<Shared>,
    first: usize,
}

impl Series {
    fn word(&self, index: usize) -> &AtomicU64 {
        self.shared.words.at(self.first + index)
    }

    /// Adds to a word that holds a floating-point number.
    fn add(&self, index: usize, value: f64) {
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // Never fails, since there is always a new value.
        let _ = self.word(index).fetch_update(Relaxed, Relaxed, add);
    }
}

/// A number that only grows; see [`Metrics::counter`]. Clones count the same. Any thread may count.
#[derive(Clone, Debug)]
pub struct Counter(Series);

impl Counter {
    /// Adds 1.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds a number.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.word(0).fetch_add(count, Relaxed);
    }

    /// What this process has counted.
    pub fn value(&self) -> u64 {
        self.0.word(0).load(Relaxed)
    }
}

/// A number that goes up and down; see [`Metrics::gauge`]. Clones share it. Any thread may change it.
#[derive(Clone, Debug)]
pub struct Gauge(Series);

impl Gauge {
    /// Sets this process's value. One that is not finite counts as 0.
    pub fn set(&self, value: f64) {
        self.0.word(0).store(value.to_bits(), Relaxed);
    }

    /// Adds to this process's value; a negative number subtracts.
    pub fn add(&self, value: f64) {
        self.0.add(0, value);
    }

    /// This process's value.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.word(0).load(Relaxed))
    }
}

/// How often values lay between which bounds; see [`Metrics::histogram`]. Clones count the same. Any thread may count.
#[derive(Clone, Debug)]
pub struct Histogram {
    series: Series,
    bounds: Arc<[f64]>,
}

impl Histogram {
    /// Counts a value, such as a duration in seconds. One that is not finite is ignored.
    pub fn observe(&self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.series.word(bucket).fetch_add(1, Relaxed);
        self.series.add(self.bounds.len() + 1, value);
    }

    /// How many values this process has counted.
    pub fn count(&self) -> u64 {
        let buckets = (0..=self.bounds.len()).map(|bucket| self.series.word(bucket).load(Relaxed));
        buckets.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_pool_has_values_of_its_own() {
        let metrics = Metrics::new();
        let counter = metrics.counter("a_total", "A.");
        counter.increment();
        counter.clone().add(2);
        let gauge = metrics.gauge("a_bytes", "A.");
        gauge.set(2.5);
        gauge.add(-4.0);
        let histogram = metrics.histogram("a_seconds", "A.", &[1.0, 2.0]);
        for value in [1.0, 1.5, 3.0, f64::NAN] {
            histogram.observe(value);
        }
        assert_eq!((counter.value(), gauge.value(), histogram.count()), (3, -1.5, 3));
    }

    #[test]
    #[should_panic(expected = "must end in _total")]
    fn a_wrong_name_is_a_panic_at_the_start() {
        let _ = Metrics::new().counter("orders", "Orders.");
    }

    /// Prints what counting costs.
    #[test]
    #[ignore = "measures"]
    fn the_cost_of_a_count() {
        let metrics = Metrics::new();
        let counter = metrics.counter("a_total", "A.");
        let histogram = metrics.histogram("a_seconds", "A.", &[0.001, 0.01, 0.1, 1.0, 10.0]);
        const COUNT: u32 = 10_000_000;
        let time = |work: &dyn Fn()| {
            let began = std::time::Instant::now();
            (0..COUNT).for_each(|_| work());
            began.elapsed() / COUNT
        };
        println!("counter: {:?}, histogram: {:?}", time(&|| counter.increment()), time(&|| histogram.observe(0.05)));
    }
}
