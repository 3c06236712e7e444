//! Focus maps as whole files: any text is drawn, nothing leaves the sheet, and what a model writes stays text.

use std::path::Path;

use image::{Rgb, RgbImage};
use report::focus_map::{DrawnMap, FocusMap, MapFormat, Panel, Picture, highest};
use report::{Fonts, missing_note};
use roxmltree::{Document, Node};

const WIDTH: f64 = 1236.0;
const MARGIN: f64 = 24.0;
const INK: [u8; 3] = [200, 30, 90];

fn picture(width: u32, height: u32) -> Picture {
    Picture {
        pixels: RgbImage::from_pixel(width * 28, height * 28, Rgb(INK)),
        tokens: [height as usize, width as usize],
    }
}

/// A map of one picture, or of those given.
fn drawn<'f>(fonts: &'f Fonts, prompt: &str, texts: &[String], pictures: &[Picture]) -> DrawnMap<'f> {
    let tokens: usize = pictures.iter().map(|p| p.tokens[0] * p.tokens[1]).sum();
    let focus: Vec<f32> = (0..texts.len()).map(|k| k as f32 / 3000.0).collect();
    let cosines: Vec<f32> = (0..tokens).map(|k| (k as f32).sin()).collect();
    let panels: Vec<Panel> =
        highest(&focus).into_iter().map(|token| Panel { token, cosines: cosines.clone() }).collect();
    FocusMap { prompt, pictures, texts, focus: &focus, panels: &panels }.draw(fonts).unwrap()
}

fn svg(map: &DrawnMap) -> String {
    String::from_utf8(map.file(MapFormat::Svg).unwrap()).unwrap()
}

fn number(node: &Node, name: &str) -> f64 {
    node.attribute(name).unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// The boxes of the tokens: left, top, width. Sides of frames are narrower.
fn boxes(file: &Document) -> Vec<[f64; 3]> {
    let rects = file.descendants().filter(|n| n.has_tag_name("rect"));
    let boxes = rects.filter(|n| n.attribute("height") == Some("24.00") && number(n, "width") > 3.0);
    boxes.map(|n| [number(&n, "x"), number(&n, "y"), number(&n, "width")]).collect()
}

/// The pixels of a prompt of one character.
fn pixels(fonts: &Fonts, c: char) -> RgbImage {
    drawn(fonts, &c.to_string(), &["a".into()], &[picture(2, 2)]).pixels().unwrap()
}

#[test]
fn characters_outside_ascii_are_drawn() {
    let fonts = Fonts::embedded();
    let box_of = |c| pixels(&fonts, c);
    assert!(box_of('漢') == box_of('字'), "a font that has neither draws the same box");
    let drawn: Vec<RgbImage> = "漢°√πé×∠≤²aж€\u{fffd}".chars().map(box_of).collect();
    for (k, one) in drawn.iter().enumerate() {
        assert!(drawn[..k].iter().all(|other| other != one), "character {k} looks like an earlier one");
    }
}

#[test]
fn what_no_font_has_is_named() {
    let fonts = Fonts::embedded();
    let map = |prompt: &str, token: &str| {
        drawn(&fonts, prompt, &[token.into()], &[picture(1, 1)]).missing().iter().collect::<String>()
    };
    assert_eq!(map("30° at √2 π", "\n\u{202e}é"), "");
    assert_eq!(map("漢 a", "\u{1f600}漢"), "漢\u{1f600}");
    // Selectors and joiners draw nothing of their own.
    assert_eq!(map("a\u{fe0f}\u{200d}", ""), "");
    assert_eq!(missing_note(&Default::default()), None);
    let note = missing_note(&['漢', '\u{1f600}'].into()).unwrap();
    for part in ["漢 (U+6F22)", "U+1F600", "fonts-noto-cjk", "fonts-noto-color-emoji", ".svg"] {
        assert!(note.contains(part), "{note}");
    }
    let many = ('\u{4e00}'..'\u{4f00}').collect();
    assert!(missing_note(&many).unwrap().contains("and 244 more"));
}

/// With the fonts of the machine a character is drawn, or it is said that it is not.
#[test]
fn fonts_of_the_system_help() {
    let same = pixels(Fonts::system(), '漢') == pixels(Fonts::system(), '字');
    let missing = !drawn(Fonts::system(), "漢字", &["a".into()], &[picture(1, 1)]).missing().is_empty();
    assert_eq!(same, missing);
    // What the font of this crate has looks the same on every machine.
    assert!(pixels(Fonts::system(), '√') == pixels(&Fonts::embedded(), '√'));
}

#[test]
fn hostile_text_stays_text() {
    let fonts = Fonts::embedded();
    let hostile = [
        "<script>alert(1)</script>",
        "</text></svg>&amp;&#0;]]>",
        "\"'--><!--",
        "\0\u{1}\u{1b}[31m\u{7f}\u{9b}",
        "\u{202e}txt\u{2066}\u{200f}",
        "\u{fffe}\u{ffff}\u{10ffff}\u{feff}\u{2028}",
        "\r\n\t",
        "",
        "\u{301}",
    ];
    let mut texts: Vec<String> = hostile.iter().map(|text| text.to_string()).collect();
    texts.push("e\u{301}".repeat(10_000));
    texts.push("\u{fdfd}".repeat(10_000));
    for prompt in texts.iter().map(String::as_str).chain([&*hostile.concat()]) {
        let map = drawn(&fonts, prompt, &texts, &[picture(2, 1)]);
        let svg = svg(&map);
        let file = Document::parse(&svg).unwrap_or_else(|error| panic!("{error}: {prompt:?}"));
        let known = ["svg", "rect", "text", "image", "defs", "linearGradient", "stop"];
        let elements = file.descendants().filter(Node::is_element);
        for element in elements {
            assert!(known.contains(&element.tag_name().name()), "{element:?}");
        }
        let said: String = file.descendants().filter_map(|n| n.is_text().then(|| n.text()).flatten()).collect();
        assert!(said.contains("<script>alert(1)</script>") && said.contains("\\u{202e}txt\\u{2066}"), "{said}");
        assert!(said.contains("\\u{1b}[31m") && said.contains("\\r\\n\\t"));
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "a control character is left");
        let pixels = map.pixels().unwrap();
        assert_eq!(f64::from(pixels.width()), WIDTH);
    }
}

#[test]
fn tokens_are_laid_into_rows() {
    let fonts = Fonts::embedded();
    let texts: Vec<String> = (0..200).map(|k| "wide ".repeat(k % 12)).collect();
    let map = drawn(&fonts, &"word ".repeat(300), &texts, &[picture(3, 3)]);
    let svg = svg(&map);
    let file = Document::parse(&svg).unwrap();
    let boxes = boxes(&file);
    assert_eq!(boxes.len(), texts.len());
    for pair in boxes.windows(2) {
        let ([x, y, width], [next_x, next_y, _]) = (pair[0], pair[1]);
        assert!(x >= MARGIN && x + width <= WIDTH - MARGIN, "{pair:?}");
        assert!((next_y == y && next_x >= x + width) || (next_y > y + 24.0 && next_x == MARGIN), "{pair:?}");
    }
    // Text stays within the sheet, and that of a token within its box.
    let all = file.descendants().filter(|n| n.has_tag_name("text"));
    let mut inside = 0;
    for text in all.filter(|n| n.has_attribute("textLength")) {
        let (x, y, length) = (number(&text, "x"), number(&text, "y"), number(&text, "textLength"));
        assert!(x + length <= WIDTH - MARGIN, "{text:?}");
        let own = boxes.iter().find(|[left, top, _]| x >= *left && x - left < 5.0 && y > *top && y < top + 24.0);
        inside += usize::from(own.is_some_and(|[left, _, width]| x + length <= left + width - 3.0));
    }
    assert_eq!(inside, texts.iter().filter(|text| !text.is_empty()).count());
    // The prompt is cut after its third line, and says so.
    let prompt = file.descendants().filter(|n| n.is_text() && n.text().is_some_and(|t| t.starts_with("word word")));
    let lines: Vec<&str> = prompt.filter_map(|n| n.text()).collect();
    assert!(lines.len() == 3 && lines[2].ends_with('…') && !lines[1].ends_with('…'), "{lines:?}");
}

/// Many pictures, one token high or wide, thousands of tokens: everything stays on a sheet of bounded size.
#[test]
fn extreme_shapes_are_drawn() {
    let fonts = Fonts::embedded();
    let texts = vec!["token\n".to_owned(); 2005];
    for pictures in [vec![picture(190, 1)], vec![picture(1, 190)], (1..9).map(|k| picture(k, 9 - k)).collect()] {
        let map = drawn(&fonts, "p", &texts, &pictures);
        let pixels = map.pixels().unwrap();
        assert!(f64::from(pixels.width()) == WIDTH && (10_000..12_000).contains(&pixels.height()));
        let svg = svg(&map);
        let file = Document::parse(&svg).unwrap();
        let height = number(&file.root_element(), "height");
        assert_eq!(f64::from(pixels.height()), height);
        assert_eq!(boxes(&file).len(), 300);
        assert!(svg.contains(">1705 more tokens are not drawn<"));
        let bottom = |n: Node| number(&n, "y") + number(&n, "height");
        assert!(
            file.descendants()
                .filter(|n| n.has_attribute("height") && n.has_attribute("y"))
                .map(bottom)
                .all(|b| b <= height)
        );
        // The picture lies there pixel for pixel.
        let image = file.descendants().find(|n| n.has_tag_name("image")).unwrap();
        let at = [number(&image, "x"), number(&image, "y")].map(|v| v as u32);
        assert_eq!(pixels.get_pixel(at[0], at[1]).0, INK);
    }
}

#[test]
fn the_name_says_the_format() {
    let of = |name: &str| MapFormat::of(Path::new(name));
    assert_eq!(of("a.png"), Ok(MapFormat::Png));
    assert_eq!(of("/dev/stdout"), Ok(MapFormat::Png));
    assert_eq!(of("a.b.SVG"), Ok(MapFormat::Svg));
    assert_eq!(of("a.html"), Ok(MapFormat::Html));
    assert!(of("a.jpg").unwrap_err().contains(".jpg"));
    let fonts = Fonts::embedded();
    let map = drawn(&fonts, "p", &["a".into()], &[picture(1, 1)]);
    let page = String::from_utf8(map.file(MapFormat::Html).unwrap()).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with(&svg(&map)));
    assert!(map.file(MapFormat::Png).unwrap().starts_with(b"\x89PNG"));
}
