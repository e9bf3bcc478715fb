//! Prometheus' text format: a type line for each family, then its samples.

use std::fmt::{Display, Write as _};

use holdfast_store::measure::Distribution;

/// The kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a sum, a count.
    Histogram,
}

/// The names and values of labels.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A text under construction.
#[derive(Default)]
pub(crate) struct Text(String);

impl Text {
    /// Begins a family; its samples follow at once.
    pub(crate) fn family(&mut self, name: &str, kind: Kind) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.write(format_args!("# TYPE {name} {kind}\n"));
    }

    /// One sample of the family.
    pub(crate) fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.write(format_args!("{name}"));
        self.labels(labels, None);
        self.write(format_args!(" {value}\n"));
    }

    /// A family of one sample without labels.
    pub(crate) fn counter(&mut self, name: &str, value: u64) {
        self.family(name, Kind::Counter);
        self.sample(name, &[], value);
    }

    /// A family of one sample without labels.
    pub(crate) fn gauge(&mut self, name: &str, value: impl Display) {
        self.family(name, Kind::Gauge);
        self.sample(name, &[], value);
    }

    /// The samples of one histogram of the family.
    pub(crate) fn histogram(&mut self, name: &str, labels: Labels<'_>, measured: &Distribution) {
        let mut reached = 0;
        for (bucket, count) in measured.counts.iter().enumerate() {
            reached += count;
            let bound = match measured.bounds.len() {
                bounds if bucket == bounds => "+Inf".to_owned(),
                _ => (measured.bounds.micros(bucket) as f64 / 1e6).to_string(),
            };
            self.write(format_args!("{name}_bucket"));
            self.labels(labels, Some(("le", &bound)));
            self.write(format_args!(" {reached}\n"));
        }
        self.sample(&format!("{name}_sum"), labels, measured.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), labels, reached);
    }

    /// The whole text.
    pub(crate) fn finish(self) -> String {
        self.0
    }

    fn labels(&mut self, labels: Labels<'_>, last: Option<(&str, &str)>) {
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            self.write(format_args!("{separator}{name}=\"{}\"", Escaped(value)));
            separator = ',';
        }
        if separator == ',' {
            self.0.push('}');
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a string takes everything");
    }
}

/// The value of a label.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_store::measure::{Bounds, Histogram};

    use super::*;

    #[test]
    fn families_samples_and_histograms_are_written() {
        let mut text = Text::default();
        text.gauge("a", 1);
        text.family("b", Kind::Counter);
        text.sample("b", &[("x", "q\"\\\n"), ("y", "")], 2.5);
        let histogram = Histogram::new(Bounds::Doubling { first_micros: 100, count: 2 });
        histogram.observe(Duration::from_micros(150));
        histogram.observe(Duration::from_secs(1));
        text.family("c", Kind::Histogram);
        text.histogram("c", &[("To", "1f")], &histogram.distribution());
        let expected = r#"# TYPE a gauge
a 1
# TYPE b counter
b{x="q\"\\\n",y=""} 2.5
# TYPE c histogram
c_bucket{To="1f",le="0.0001"} 0
c_bucket{To="1f",le="0.0002"} 1
c_bucket{To="1f",le="+Inf"} 2
c_sum{To="1f"} 1.00015
c_count{To="1f"} 2
"#;
        assert_eq!(text.finish(), expected);
    }
}
