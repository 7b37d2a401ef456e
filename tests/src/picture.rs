//! A terminal's screen as a picture: SVG with the text, the colors and the weight of its cells.
//!
//! One `<text>` element is one run of cells that look the same, so that two pictures can be compared run by run
//! ([`runs`]), without their geometry.

use std::fmt::Write as _;

use vt100::{Cell, Color, Screen};

/// Width of a cell: what monospaced fonts of [`FONT`] pixels have, which is forced on others.
const CELL: f64 = 8.4;
const FONT: u16 = 14;
const LINE: u16 = 20;
const MARGIN: u16 = 16;

/// The screen's own ground, which reads well on a white and on a dark page.
const GROUND: &str = "#1b1f27";
const TEXT: &str = "#c9d1d9";
const STRONG: &str = "#ffffff";
/// The terminal's first eight colors, and their bright forms.
const PALETTE: [&str; 16] = [
    "#484f58", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#c9d1d9",
    "#6e7681", "#ffa198", "#aff5b4", "#f2cc60", "#a5d6ff", "#e2c5ff", "#b3f0ff", "#ffffff",
];

/// Draws the screen, as far down as there is something on it.
pub fn svg(screen: &Screen) -> String {
    let (rows, columns) = screen.size();
    let (rows, columns) = (rows.get(), columns.get());
    let mut texts = String::new();
    let mut used = 0;
    for row in 0..rows {
        for (start, style, text) in row_runs(screen, row, columns) {
            used = row + 1;
            let _ = writeln!(
                texts,
                r#"<text x="{:.1}" y="{}" textLength="{:.1}" {style}>{}</text>"#,
                f64::from(MARGIN) + f64::from(start) * CELL,
                MARGIN + FONT + row * LINE,
                f64::from(u16::try_from(text.chars().count()).expect("a row")) * CELL,
                escaped(&text),
            );
        }
    }
    let width = f64::from(columns) * CELL + f64::from(2 * MARGIN);
    let height = used * LINE + 2 * MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height}\" width=\"{width:.0}\" \
         height=\"{height}\" font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace\" \
         font-size=\"{FONT}\" xml:space=\"preserve\">\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{:.0}\" height=\"{}\" rx=\"8\" fill=\"{GROUND}\" stroke=\"#6e7681\"/>\n\
         {texts}</svg>\n",
        width - 1.0,
        height - 1,
    )
}

/// Gives the runs of such a picture: how each looks, and its text.
pub fn runs(svg: &str) -> Vec<(String, String)> {
    svg.lines()
        .filter_map(|line| {
            let (head, text) = line.strip_suffix("</text>")?.split_once('>')?;
            let style = head.split_once("fill=")?.1;
            let text = text.replace("&lt;", "<").replace("&gt;", ">");
            Some((style.to_owned(), text.replace("&amp;", "&")))
        })
        .collect()
}

/// The runs of a row: column, style and text of each; blanks at the ends are part of none.
fn row_runs(screen: &Screen, row: u16, columns: u16) -> Vec<(u16, String, String)> {
    let mut runs: Vec<(u16, String, String)> = Vec::new();
    for column in 0..columns {
        let cell = screen.cell(row, column).expect("a cell of the screen");
        let text = if cell.has_contents() {
            cell.contents()
        } else {
            " "
        };
        let style = style(cell);
        match runs.last_mut() {
            Some((_, last, run)) if *last == style => run.push_str(text),
            _ => runs.push((column, style, text.to_owned())),
        }
    }
    for (start, _, text) in &mut runs {
        let blanks = text.len() - text.trim_start().len();
        *start += u16::try_from(blanks).expect("a row");
        *text = text.trim().to_owned();
    }
    runs.retain(|(_, _, text)| !text.is_empty());
    runs
}

fn style(cell: &Cell) -> String {
    let mut style = match cell.fgcolor() {
        Color::Default if cell.bold() => format!(r#"fill="{STRONG}""#),
        Color::Default => format!(r#"fill="{TEXT}""#),
        Color::Idx(index) => match PALETTE.get(usize::from(index)) {
            Some(color) => format!(r#"fill="{color}""#),
            None => panic!("the picture has no color {index} yet"),
        },
        Color::Rgb(red, green, blue) => format!(r#"fill="rgb({red},{green},{blue})""#),
    };
    if cell.bold() {
        style += r#" font-weight="bold""#;
    }
    if cell.dim() {
        style += r#" opacity="0.7""#;
    }
    if cell.underline() {
        style += r#" text-decoration="underline""#;
    }
    style
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
