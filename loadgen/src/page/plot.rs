//! A plot as SVG, with the numbers it was drawn from.

use std::fmt::Write as _;

use super::escape;

/// The plot's own units; the page stretches it.
const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 32.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Colours in the style sheet.
const COLOURS: usize = 5;

/// A line.
#[derive(Clone, Debug)]
pub(super) struct Series {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

impl Series {
    pub(super) fn new(name: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { name, points }
    }
}

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: &'static str,
    pub(super) scale: Scale,
    pub(super) from: f64,
    pub(super) to: f64,
    /// `None`: round numbers.
    pub(super) ticks: Option<Vec<(f64, String)>>,
}

fn values(series: &[Series]) -> impl Iterator<Item = f64> {
    series
        .iter()
        .flat_map(|series| series.points.iter().map(|(_, y)| *y))
}

impl Axis {
    /// From 0 to above the largest value.
    pub(super) fn linear(label: &'static str, series: &[Series]) -> Self {
        let most = values(series).fold(0.0, f64::max);
        let step = round_step(most.max(1.0));
        Self {
            label,
            scale: Scale::Linear,
            from: 0.0,
            to: (most.max(1.0) / step).ceil() * step,
            ticks: None,
        }
    }

    /// Over the powers of ten that hold all values.
    pub(super) fn logarithmic(label: &'static str, series: &[Series]) -> Self {
        let least = values(series).fold(f64::INFINITY, f64::min);
        let most = values(series).fold(0.0, f64::max);
        let (least, most) = if most > 0.0 {
            (least, most)
        } else {
            (0.1, 1.0)
        };
        let from = 10.0_f64.powf(least.log10().floor());
        let to = 10.0_f64.powf(most.log10().ceil());
        Self {
            label,
            scale: Scale::Logarithmic,
            from,
            to: if to > from { to } else { from * 10.0 },
            ticks: None,
        }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Logarithmic => (value / self.from).log10() / (self.to / self.from).log10(),
        }
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        if let Some(ticks) = &self.ticks {
            return ticks.clone();
        }
        let mut ticks = Vec::new();
        let mut at = self.from;
        while at <= self.to * (1.0 + 1e-9) {
            ticks.push((at, number(at)));
            at = match self.scale {
                Scale::Linear => at + round_step(self.to - self.from),
                Scale::Logarithmic => at * 10.0,
            };
        }
        ticks
    }

    fn data(&self, name: &str) -> String {
        let scale = match self.scale {
            Scale::Linear => "linear",
            Scale::Logarithmic => "log",
        };
        let (from, to) = (self.from, self.to);
        format!("data-{name}-scale=\"{scale}\" data-{name}-from=\"{from}\" data-{name}-to=\"{to}\"")
    }
}

/// A step of 1, 2 or 5 times a power of ten, of which a span has 4 to 10.
fn round_step(span: f64) -> f64 {
    let power = 10.0_f64.powf((span / 4.0).log10().floor());
    let steps = [5.0, 2.0, 1.0].map(|factor| factor * power);
    steps
        .into_iter()
        .find(|step| span / step >= 4.0)
        .unwrap_or(power)
}

fn number(value: f64) -> String {
    if value >= 1000.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        let text = format!("{value:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// A figure of the page.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

impl Plot {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (
            LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM),
        )
    }

    pub(super) fn svg(&self) -> String {
        let mut text = format!(
            "<section><h2>{}</h2><figure><div class=\"legend\">",
            escape(self.title)
        );
        for (index, series) in self.series.iter().enumerate() {
            let (class, name) = (index % COLOURS, escape(series.name));
            let _ = write!(text, "<span class=\"c{class}\"><i></i>{name}</span>");
        }
        let (left, right) = (LEFT, WIDTH - RIGHT);
        let (top, bottom) = (TOP, HEIGHT - BOTTOM);
        let _ = write!(
            text,
            "</div><svg id=\"{}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" \
             {} {} data-left=\"{left}\" data-right=\"{right}\" data-top=\"{top}\" \
             data-bottom=\"{bottom}\">",
            self.id,
            escape(self.title),
            self.x.data("x"),
            self.y.data("y")
        );
        self.write_axes(&mut text);
        for (index, series) in self.series.iter().enumerate() {
            self.write_series(&mut text, index % COLOURS, series);
        }
        text + "</svg></figure></section>"
    }

    fn write_axes(&self, text: &mut String) {
        let (left, right, bottom) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in self.y.ticks() {
            let (_, y) = self.at((self.x.from, value));
            let _ = write!(
                text,
                "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.2}\" y2=\"{y:.2}\"/>\
                 <text x=\"{:.0}\" y=\"{:.2}\" text-anchor=\"end\">{label}</text>",
                left - 8.0,
                y + 4.0
            );
        }
        for (value, label) in self.x.ticks() {
            let x = LEFT + self.x.place(value) * (right - left);
            let _ = write!(
                text,
                "<line class=\"axis\" x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"{bottom}\" y2=\"{:.0}\"/>\
                 <text x=\"{x:.2}\" y=\"{:.0}\" text-anchor=\"middle\">{label}</text>",
                bottom + 4.0,
                bottom + 18.0
            );
        }
        let _ = write!(
            text,
            "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
             <text x=\"{right}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <text x=\"4\" y=\"{:.0}\">{}</text>",
            HEIGHT - 8.0,
            escape(self.x.label),
            HEIGHT - 8.0,
            escape(self.y.label)
        );
    }

    fn write_series(&self, text: &mut String, class: usize, series: &Series) {
        let name = escape(series.name);
        let places: Vec<(f64, f64)> = series.points.iter().map(|p| self.at(*p)).collect();
        let drawn: Vec<String> = places
            .iter()
            .map(|(x, y)| format!("{x:.2},{y:.2}"))
            .collect();
        let data: Vec<String> = series
            .points
            .iter()
            .map(|(x, y)| format!("{x},{y}"))
            .collect();
        let _ = write!(
            text,
            "<polyline class=\"c{class}\" data-series=\"{name}\" data-points=\"{}\" points=\"{}\"/>",
            data.join(" "),
            drawn.join(" ")
        );
        for ((x, y), (_, value)) in places.iter().zip(&series.points) {
            let _ = write!(
                text,
                "<circle class=\"c{class}\" cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"3\"><title>{name}: {}</title></circle>",
                number(*value)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (span, step) in [(1.0, 0.2), (9.0, 2.0), (40.0, 10.0), (1234.0, 200.0)] {
            assert!((round_step(span) - step).abs() < 1e-9, "{span}");
        }
    }

    #[test]
    fn points_lie_where_their_axes_say() {
        let series = vec![Series::new("a", vec![(0.0, 1.0), (10.0, 100.0)])];
        let plot = Plot {
            id: "p",
            title: "t",
            x: Axis {
                label: "x",
                scale: Scale::Linear,
                from: 0.0,
                to: 10.0,
                ticks: None,
            },
            y: Axis::logarithmic("y", &series),
            series,
        };
        assert_eq!(plot.at((0.0, 1.0)), (LEFT, HEIGHT - BOTTOM));
        assert_eq!(plot.at((10.0, 100.0)), (WIDTH - RIGHT, TOP));
        let svg = plot.svg();
        assert!(svg.contains("data-points=\"0,1 10,100\""), "{svg}");
    }
}
