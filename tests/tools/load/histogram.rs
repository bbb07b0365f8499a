//! Latencies, and the quantiles of them.

/// Log-linear: 32 buckets for each power of two, so that what it returns is at most 3 % too much.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    max: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, value: u64) {
        let shift = (u64::BITS - value.leading_zeros()).saturating_sub(6);
        let bucket = shift as usize * 32 + (value >> shift) as usize;
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.max = self.max.max(value);
    }

    pub(crate) fn summary(&self) -> [(&'static str, u64); 5] {
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
        let [p50, p90, p99, p999] = quantiles.map(|(name, part)| (name, self.quantile(part)));
        [p50, p90, p99, p999, ("max", self.max)]
    }

    /// The largest value of the bucket that this part of all values reaches; 0 when there are none.
    fn quantile(&self, part: f64) -> u64 {
        let wanted = (self.buckets.iter().sum::<u64>() as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                let shift = (bucket / 32).saturating_sub(1);
                return ((((bucket - shift * 32) as u64 + 1) << shift) - 1).min(self.max);
            }
        }
        0
    }
}
