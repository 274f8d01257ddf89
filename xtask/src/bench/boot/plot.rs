// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A picture (SVG 1.1) of host memory against the number of VMs.

use std::fmt::Write;

/// The picture, and the area enclosed by the axes, in pixels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 540.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 340.0;

/// Colours that colour-blind people can tell apart.
const COLOURS: [&str; 2] = ["#0072b2", "#d55e00"];

/// The maximum number of grid lines, and the possible distances between them, in MiB.
const LINES: f64 = 8.0;
const STEPS: [f64; 7] = [10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

/// Draws lines, each with a name and the MiB of host memory for 1, 2, 3 ... VMs.
pub fn draw(lines: &[(&str, Vec<f64>); 2]) -> String {
    let most = lines.iter().flat_map(|(_, values)| values).copied().fold(1.0, f64::max);
    let step = STEPS.into_iter().find(|step| most / step <= LINES).unwrap_or(most);
    let top = (most / step).ceil() * step;
    let vms = lines.iter().map(|(_, values)| values.len()).max().unwrap_or(1);
    let x = |vm: usize| LEFT + (RIGHT - LEFT) * vm as f64 / vms as f64;
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / top;
    let mut text = format!(
        "<!-- SPDX-License-Identifier: Apache-2.0 OR MIT -->\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#1c2329\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"32\" font-size=\"17\">Host memory of VMs that have read their root, MiB</text>\n"
    );
    // Writing to a String cannot fail, here and below.
    let mut value = 0.0;
    while value <= top {
        let y = y(value);
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#c3cad1\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 8.0,
            y + 4.0
        );
        value += step;
    }
    for vm in 1..=vms {
        let (x, y) = (x(vm), BOTTOM + 20.0);
        let _ = writeln!(text, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{vm}</text>");
    }
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">VMs</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 44.0
    );
    for ((name, values), colour) in lines.iter().zip(COLOURS) {
        let points: Vec<(f64, f64)> =
            values.iter().zip(1..).map(|(&value, vm)| (x(vm), y(value))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (x, y) in &points {
            let _ =
                writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
        }
        if let (Some((x, y)), Some(value)) = (points.last(), values.last()) {
            let (x, y) = (x + 10.0, y + 4.0);
            let _ = writeln!(
                text,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{name}: {value:.0}</text>"
            );
        }
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn points_lie_between_the_axes() {
        let picture = super::draw(&[("one", vec![100.0, 200.0]), ("two", vec![100.0, 150.0])]);
        // 200 of 200 is at the top, two VMs are at the right end, and 100 is half-way up.
        assert!(picture.contains("points=\"310.0,200.0 540.0,60.0\""), "{picture}");
        assert!(picture.contains("points=\"310.0,200.0 540.0,130.0\""), "{picture}");
        assert!(picture.contains(">two: 150</text>"), "{picture}");
    }
}
