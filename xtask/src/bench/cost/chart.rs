//! A chart of bars on a logarithmic scale, as SVG.
//!
//! Each group has a bar for each series, side by side, with its figure at its end; a bar begins at 1.
//! Colours and grid can be read on a light and on a dark ground, between which the reader's system
//! chooses.

use std::fmt::Write;

/// Sizes, in pixels.
const WIDTH: f64 = 960.0;
const MARGIN: f64 = 24.0;
const LEFT: f64 = 160.0;
const TOP: f64 = 112.0;
const BAR: f64 = 9.0;
const GROUP_GAP: f64 = 14.0;
/// For the figure at the end of the longest bar.
const RIGHT: f64 = 72.0;
const LEGEND_COLUMN: f64 = 150.0;
/// Colours of the series, on light and on dark ground.
const COLOURS: [(&str, &str); 7] = [
    ("#1b6ca8", "#5bb0ee"),
    ("#0f8b6d", "#3fcfa6"),
    ("#c2571a", "#f0904f"),
    ("#dc9a3c", "#f2bd6d"),
    ("#8a4fb0", "#c08be2"),
    ("#b3345a", "#ec7799"),
    ("#6d747d", "#a5adb8"),
];

/// What is drawn.
#[derive(Debug, Default)]
pub(super) struct Chart {
    pub(super) title: String,
    /// Says what the figures are, with their unit.
    pub(super) subtitle: String,
    pub(super) series: Vec<String>,
    pub(super) groups: Vec<Group>,
}

/// Bars that stand together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    /// For each series; `None` if there is no figure.
    pub(super) values: Vec<Option<f64>>,
}

impl Chart {
    /// Returns the whole document.
    pub(super) fn to_svg(&self) -> String {
        let n_bars = self.series.len() as f64;
        let group_height = n_bars * BAR + GROUP_GAP;
        let bottom = TOP + self.groups.len() as f64 * group_height;
        let height = bottom + 48.0;
        let scale = Scale::of(self.groups.iter().flat_map(|group| &group.values));
        let mut svg = head(height);
        text(&mut svg, MARGIN, 32.0, "t", &self.title);
        text(&mut svg, MARGIN, 52.0, "s", &self.subtitle);
        self.legend(&mut svg);
        for (at, label) in scale.ticks() {
            line(&mut svg, at, TOP - 6.0, bottom);
            text(&mut svg, at, bottom + 16.0, "s m", &label);
        }
        for (i, group) in self.groups.iter().enumerate() {
            let y = TOP + i as f64 * group_height;
            text(&mut svg, LEFT - 10.0, y + n_bars * BAR / 2.0 + 4.0, "e", &group.name);
            for (series, value) in group.values.iter().enumerate() {
                if let Some(value) = value {
                    let label = format!("{}, {}", group.name, self.series[series]);
                    bar(&mut svg, &scale, y + series as f64 * BAR, series, *value, &label);
                }
            }
        }
        svg + "</svg>\n"
    }

    fn legend(&self, svg: &mut String) {
        for (i, name) in self.series.iter().enumerate() {
            let n_columns = ((WIDTH - 2.0 * MARGIN) / LEGEND_COLUMN) as usize;
            let x = MARGIN + (i % n_columns) as f64 * LEGEND_COLUMN;
            let y = 74.0 + (i / n_columns) as f64 * 16.0;
            element(
                svg,
                format_args!(
                    "<rect class=\"c{i}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\"/>",
                    y - 9.0
                ),
            );
            text(svg, x + 15.0, y, "", name);
        }
    }
}

/// From figures to places.
struct Scale {
    end: f64,
}

impl Scale {
    /// From 1 to the first round figure from ten on that no value exceeds.
    fn of<'a>(values: impl Iterator<Item = &'a Option<f64>>) -> Self {
        let most = values.flatten().copied().fold(10.0, f64::max);
        Self { end: round_figures().find(|figure| *figure >= most).unwrap_or(most) }
    }

    fn place(&self, value: f64) -> f64 {
        let part = value.clamp(1.0, self.end).log10() / self.end.log10();
        LEFT + part * (WIDTH - RIGHT - LEFT)
    }

    /// Places and labels.
    fn ticks(&self) -> Vec<(f64, String)> {
        let figures = round_figures().take_while(|figure| *figure <= self.end);
        figures.map(|figure| (self.place(figure), format!("{figure}×"))).collect()
    }
}

/// 1, 2, 5, 10, 20 and so on.
fn round_figures() -> impl Iterator<Item = f64> {
    (0..300).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)))
}

fn head(height: f64) -> String {
    let style = |index: fn(&(&'static str, &'static str)) -> &'static str| {
        COLOURS.iter().enumerate().fold(String::new(), |style, (i, colour)| {
            style + &format!(".c{i}{{fill:{}}}", index(colour))
        })
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif\" \
         font-size=\"12\">\n<style>.g{{fill:#fff}}text{{fill:#33373d}}.t{{font-size:17px;\
         font-weight:600}}.s{{fill:#5d636b}}.v{{font-size:8.5px}}.e{{text-anchor:end}}\
         .m{{text-anchor:middle}}line{{stroke:#d9dce0}}{}\
         @media (prefers-color-scheme: dark){{.g{{fill:#16191d}}text{{fill:#e3e6ea}}\
         .s{{fill:#a5adb8}}line{{stroke:#343a42}}{}}}</style>\n\
         <rect class=\"g\" width=\"100%\" height=\"100%\"/>\n",
        style(|colour| colour.0),
        style(|colour| colour.1),
    )
}

fn bar(svg: &mut String, scale: &Scale, y: f64, series: usize, value: f64, label: &str) {
    let figure = if value < 10.0 { format!("{value:.2}×") } else { format!("{value:.0}×") };
    // What is no slower than untraced is still to be seen.
    let width = (scale.place(value) - LEFT).max(1.0);
    element(
        svg,
        format_args!(
            "<rect class=\"c{}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\">\
             <title>{}: {figure}</title></rect>",
            series % COLOURS.len(),
            BAR - 1.0,
            escaped(label)
        ),
    );
    text(svg, LEFT + width + 3.0, y + BAR - 2.0, "v", &figure);
}

fn line(svg: &mut String, x: f64, from: f64, to: f64) {
    element(svg, format_args!("<line x1=\"{x:.1}\" y1=\"{from}\" x2=\"{x:.1}\" y2=\"{to}\"/>"));
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = escaped(text);
    element(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"));
}

fn element(svg: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(svg, "{element}").expect("a string can be written to");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: Vec<Option<f64>>) -> Chart {
        let series = (0..values.len()).map(|i| format!("tool {i}")).collect();
        let groups = vec![Group { name: String::from("json & <maps>"), values }];
        Chart { title: String::from("Slowdown"), subtitle: String::from("times"), series, groups }
    }

    #[test]
    fn there_is_a_bar_with_its_figure_for_each_value_and_none_for_what_is_missing() {
        let svg = chart(vec![Some(1.234), None, Some(43.2)]).to_svg();
        assert_eq!(svg.matches("<title>").count(), 2);
        assert!(svg.contains("<title>json &amp; &lt;maps&gt;, tool 2: 43×</title>"), "{svg}");
        assert!(svg.contains(">1.23×</text>") && svg.contains(">tool 1</text>"), "{svg}");
        assert!(svg.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn the_scale_is_logarithmic_from_one_to_a_round_figure() {
        let scale = Scale::of([Some(83.0), None, Some(0.9)].iter());
        let middle = f64::midpoint(scale.place(1.0), scale.place(100.0));
        assert!((scale.place(10.0) - middle).abs() < 1e-9);
        assert_eq!(scale.place(0.9), scale.place(1.0));
        let labels: Vec<String> = scale.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels.join(" "), "1× 2× 5× 10× 20× 50× 100×");
        assert_eq!(Scale::of([Some(101.0)].iter()).end, 200.0);
        assert_eq!(Scale::of([].iter()).end, 10.0);
    }

    #[test]
    fn a_chart_of_nothing_is_a_document_all_the_same() {
        let svg = Chart::default().to_svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
