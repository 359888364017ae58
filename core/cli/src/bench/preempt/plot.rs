//! The latencies of the mixed load as a plot: how long the slowest part of the short calls waits, by policy. Both axes are logarithmic.

use std::path::Path;

use plotters::prelude::*;

use super::mix::{Mix, POLICIES};
use crate::bench::stopped;
use crate::failure::Failure;

const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(204, 121, 167),
    RGBColor(120, 120, 120),
];

const FONT: (&str, u32) = ("sans-serif", 17);

/// Writes the file.
pub(super) fn draw(mix: &Mix, file: &Path) -> Result<(), Failure> {
    let mut text = String::new();
    draw_into(mix, &mut text).map_err(|e| stopped(format!("cannot draw the plot: {e}")))?;
    std::fs::write(file, text).map_err(|e| stopped(format!("{}: cannot write it: {e}", file.display())))
}

fn draw_into(mix: &Mix, text: &mut String) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let root = SVGBackend::with_string(text, (900, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let top = (0..POLICIES.len()).map(|i| mix.quantile_us(i, 1.0)).fold(100.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption("calls of 5 us beside 2 % long ones, one worker, 70 % load", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..4.0, (1.0..top * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("part of the short calls that are faster")
        .y_desc("latency from when the call was due, us")
        .x_labels(5)
        .x_label_formatter(&|x| percent(*x))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(FONT)
        .axis_desc_style(FONT)
        .draw()?;
    for (i, policy) in POLICIES.iter().enumerate() {
        let color = COLORS[i];
        let points = (0..=400).map(|step| f64::from(step) / 100.0);
        let points = points.map(|x| (x, mix.quantile_us(i, 1.0 - 10f64.powf(-x)).max(1.0)));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(policy.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(FONT)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

/// What is left of the axis at this place: 1 is 90 %, 2 is 99 %.
fn percent(x: f64) -> String {
    format!("{} %", (100.0 - 10f64.powf(2.0 - x)).clamp(0.0, 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_is_in_nines() {
        assert_eq!([0.0, 1.0, 2.0, 3.0].map(percent), ["0 %", "90 %", "99 %", "99.9 %"]);
    }
}
