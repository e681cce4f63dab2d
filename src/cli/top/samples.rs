//! Samples of the metrics page.

/// What the page says, in its order: name with labels, value.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<(String, f64)>);

impl Samples {
    /// Reads the Prometheus text format. What is no sample is left out.
    pub(super) fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The samples of a family: the value of one label, and the sample's.
    pub(super) fn by_label(&self, family: &str, label: &str) -> Vec<(&str, f64)> {
        let start = format!("{label}=\"");
        let labelled = |(name, value): &'_ (String, f64)| -> Option<(usize, usize, f64)> {
            let labels = name.strip_prefix(family)?.strip_prefix('{')?;
            let offset = name.len() - labels.len();
            let from = offset + labels.find(&start)? + start.len();
            let to = from + name[from..].find('"')?;
            Some((from, to, *value))
        };
        let found = self.0.iter().filter_map(|sample| labelled(sample).map(|(from, to, value)| (&sample.0[from..to], value)));
        found.collect()
    }

    /// All samples of a family together; 0 when there are none.
    pub(super) fn sum(&self, family: &str) -> f64 {
        let of_family = |name: &str| name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        self.0.iter().filter(|(name, _)| of_family(name)).map(|(_, value)| value).sum()
    }
}
