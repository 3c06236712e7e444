//! The page in a browser: what a reader sees and does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::chromium::Browser;
use crate::invented::Invented;
use crate::server::serve;

/// Charts that are in sight and have drawn points.
const DRAWN: &str = "[...document.querySelectorAll('.card canvas')].filter((c) => { \
    const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; return d.some((v) => v !== 0); }).length";
/// The heat over the picture as a text that differs where it does.
const HEAT: &str = "(() => { const c = document.querySelector('canvas.heat'); \
    return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).join(); })()";

fn quiet(browser: &Browser) {
    assert!(browser.errors.is_empty(), "the page complained: {:#?}", browser.errors);
}

/// The first token with this text in the first response.
fn token(browser: &mut Browser, text: &str) -> String {
    let place = browser.eval(&format!(
        "[...document.querySelector('.member').querySelectorAll('.token')].findIndex((t) => t.textContent === {text:?})"
    ));
    assert!(place.as_i64().unwrap() >= 0, "{text:?} is no token");
    format!(".member .token[data-index='{place}']")
}

#[test]
fn curves_of_two_runs_are_drawn_live() {
    let Some(mut browser) = Browser::start() else { return };
    let place = tempfile::tempdir().unwrap();
    let first = Invented::default().write(&place.path().join("vgpo"));
    let second = Invented { seed: 2, beta: 0.0, ..Default::default() }.write(&place.path().join("grpo"));
    let address = serve(&[&first, &second]);
    browser.open(&format!("http://{address}/"));
    browser.wait(&format!("{DRAWN} >= 4"));
    assert_eq!(browser.eval("document.querySelector('.card').dataset.points"), json!("120"));
    assert_eq!(browser.eval("document.querySelectorAll('.card .readout .dot').length >= 8"), json!(true));
    let said = browser.eval("document.querySelector('.card[data-key=reward] .meaning').textContent");
    assert_eq!(said, json!("the reward (mean over responses)"));
    // Search, scale and one run alone.
    browser.eval("(() => { const i = document.querySelector('input[type=search]'); i.value = 'longest'; i.dispatchEvent(new Event('input')); })()");
    let shown =
        browser.eval("[...document.querySelectorAll('.card')].filter((c) => c.offsetParent).map((c) => c.dataset.key)");
    assert!(shown.as_array().unwrap().contains(&json!("response_length/max")), "{shown}");
    assert!(!shown.as_array().unwrap().contains(&json!("reward")), "{shown}");
    browser.eval("document.querySelectorAll('.toolbar input[type=checkbox]').forEach((box) => box.click())");
    browser.eval("document.querySelectorAll('.toolbar input[type=checkbox]').forEach((box) => box.click())");
    // A step that is written now appears.
    let log = first.join("metrics.jsonl");
    let more = std::fs::read_to_string(&log).unwrap() + "{\"step\":121,\"reward\":0.25,\"mine/late\":1}\n";
    std::fs::write(&log, more).unwrap();
    browser.wait("document.getElementById('live').textContent.includes('121')");
    browser.wait("document.querySelector('.card[data-key=\"mine/late\"]')");
    // What is there is not read again.
    let length = std::fs::metadata(&log).unwrap().len();
    assert_eq!(browser.eval("View.logs[0].next"), json!(length));
    // A run that goes away is missed, and the other stays.
    std::fs::remove_dir_all(&first).unwrap();
    browser.wait("document.getElementById('notices').textContent.includes('vgpo: its folder is not there any more')");
    browser.wait("View.logs[0].steps.length === 0 && View.logs[1].steps.length === 120");
    quiet(&browser);
}

#[test]
fn rollouts_show_where_a_token_looked() {
    let Some(mut browser) = Browser::start() else { return };
    let place = tempfile::tempdir().unwrap();
    let address = serve(&[&Invented::default().write(place.path())]);
    browser.open(&format!("http://{address}/#rollouts"));
    browser.wait("document.querySelectorAll('.member').length === 4");
    browser.wait("document.querySelector('.picture img')?.naturalWidth === 224");
    let mean = browser.eval(HEAT);
    let red = token(&mut browser, " red");
    browser.point(&red);
    browser.wait("document.querySelector('canvas.heat').dataset.token !== 'mean'");
    let over_red = browser.eval(HEAT);
    let blue = token(&mut browser, " blue");
    browser.point(&blue);
    browser.wait(&format!("{HEAT} !== {over_red}"));
    assert!(over_red != mean && browser.eval(HEAT) != mean);
    browser.wait("document.querySelector('.token-info').textContent.includes('blue')");
    browser.wait("document.querySelector('.token-info').textContent.includes('visual focus')");
    // The same with the keyboard alone.
    browser.eval("document.querySelector('.response.tokens').focus()");
    browser.key("Home");
    browser.key("ArrowRight");
    browser.wait("document.querySelector('canvas.heat').dataset.token === '1'");
    // Another value colours the tokens otherwise.
    let color = format!("document.querySelector(\"{red}\").style.backgroundColor");
    let by_focus = browser.eval(&color);
    browser.eval("(() => { const s = document.querySelector('.tools select'); s.value = 'advantage'; s.dispatchEvent(new Event('change')); })()");
    assert!(by_focus.as_str().unwrap().starts_with("rgba") && browser.eval(&color) != by_focus);
    for (filter, groups) in
        [("Flat group", 2), ("Cut off", 1), ("Graders disagree", 1), ("Wrong", 3), ("With tokens", 2), ("All", 3)]
    {
        browser.eval(&format!(
            "[...document.querySelectorAll('.chip')].find((c) => c.textContent === {filter:?}).click()"
        ));
        browser.wait(&format!("document.querySelectorAll('.entry').length === {groups}"));
    }
    // The group that the filters left, and by key the next, which is hostile: its text is there, and is text.
    browser.wait("document.querySelector('.member .response').textContent.includes('green')");
    browser.eval("document.activeElement.blur()");
    browser.key("j");
    browser.wait("document.querySelector('.question').textContent.includes('<img src=x onerror=')");
    assert_eq!(browser.eval("document.querySelectorAll('.group img').length"), json!(0));
    assert!(browser.eval("window.harmed === undefined").as_bool().unwrap());
    quiet(&browser);
}

#[test]
fn every_part_works_on_a_phone_and_for_runs_that_lack_most() {
    let Some(mut browser) = Browser::start() else { return };
    let place = tempfile::tempdir().unwrap();
    let whole = Invented::default().write(&place.path().join("whole"));
    let old = Invented { seed: 3, beta: 0.25, ..Default::default() }.write(&place.path().join("old"));
    for folder in ["tokens", "pictures"] {
        std::fs::remove_dir_all(old.join(folder)).unwrap();
    }
    std::fs::remove_file(old.join("run.json")).unwrap();
    let empty = place.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(empty.join("metrics.jsonl"), "").unwrap();
    let address = serve(&[&whole, &old, &empty]);
    browser.size(390, 800);
    for (part, sign) in [
        ("curves", ".card canvas"),
        ("rollouts/0", ".member .token"),
        ("rollouts/1", ".member .response"),
        ("rollouts/2", ".list .empty"),
        ("validation", ".pair"),
        ("config", "tr.differs"),
        ("aside", "td"),
        ("about", "dl"),
    ] {
        browser.open(&format!("http://{address}/#{part}"));
        browser.wait(&format!("document.querySelector({sign:?})"));
        let wider = browser.eval("document.documentElement.scrollWidth - innerWidth");
        assert!(wider.as_i64().unwrap() <= 0, "{part} is {wider} px wider than the phone");
    }
    quiet(&browser);
}

#[test]
fn a_file_opens_without_a_server() {
    let Some(mut browser) = Browser::start() else { return };
    let place = tempfile::tempdir().unwrap();
    let run = Invented::default().write(&place.path().join("run"));
    let out = place.path().join("report.html");
    view::write_report(&[run], &out).unwrap();
    browser.open(&format!("file://{}", out.display()));
    browser.wait(&format!("{DRAWN} >= 4"));
    browser.open(&format!("file://{}#rollouts", out.display()));
    browser.wait("document.querySelector('.picture img')?.naturalWidth === 224");
    let mean = browser.eval(HEAT);
    let red = token(&mut browser, " red");
    browser.point(&red);
    browser.wait("document.querySelector('canvas.heat').dataset.token !== 'mean'");
    assert_ne!(browser.eval(HEAT), mean);
    browser.open(&format!("file://{}#rollouts/0/120/2", out.display()));
    browser.wait("document.querySelector('.question')?.textContent.includes('<img src=x onerror=')");
    assert!(browser.eval("window.harmed === undefined").as_bool().unwrap());
    quiet(&browser);
}

#[test]
fn a_large_run_opens_quickly() {
    let Some(mut browser) = Browser::start() else { return };
    let place = tempfile::tempdir().unwrap();
    let run = Invented { steps: 2000, more_metrics: 200, logged_steps: 300, ..Default::default() }.write(place.path());
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let count = metrics.lines().last().unwrap().matches("\":").count();
    let address = serve(&[&run]);
    let curves = browser.open(&format!("http://{address}/"));
    browser.wait(&format!("{DRAWN} >= 4"));
    let rollouts = browser.open(&format!("http://{address}/#rollouts"));
    browser.wait("document.querySelectorAll('.member').length === 4");
    println!(
        "2,000 steps of {count} metrics, {} MB: curves after {curves:.2?}, rollouts after {rollouts:.2?}",
        metrics.len() >> 20
    );
    assert!(count >= 300, "{count}");
    assert!(curves < Duration::from_secs(40) && rollouts < Duration::from_secs(40), "{curves:?} {rollouts:?}");
    quiet(&browser);
}

/// `VIEW_SCREENSHOTS=docs/view cargo test -p view-server -- --ignored` writes the pictures of the documentation; of
/// runs of yours with `VIEW_RUNS=RUN:RUN`.
#[test]
#[ignore = "writes the pictures of the documentation"]
fn the_pictures_of_the_documentation() {
    let Some(mut browser) = Browser::start() else { return };
    let out = PathBuf::from(std::env::var("VIEW_SCREENSHOTS").expect("VIEW_SCREENSHOTS names a folder"));
    let place = tempfile::tempdir().unwrap();
    let runs: Vec<PathBuf> = match std::env::var("VIEW_RUNS") {
        Ok(named) => named.split(':').map(PathBuf::from).collect(),
        Err(_) => vec![
            Invented::default().write(&place.path().join("vgpo")),
            Invented { seed: 2, beta: 0.0, ..Default::default() }.write(&place.path().join("grpo")),
        ],
    };
    let address = serve(&runs.iter().map(PathBuf::as_path).collect::<Vec<&Path>>());
    browser.open(&format!("http://{address}/"));
    browser.wait(&format!("{DRAWN} >= 4"));
    browser.screenshot(&out.join("curves.png"));
    browser.open(&format!("http://{address}/#rollouts"));
    browser.wait("document.querySelector('.member .token')");
    browser.wait("document.querySelector('.picture img')?.complete");
    browser.screenshot(&out.join("group.png"));
    // The token that looked most.
    let strongest = browser.eval(
        "(() => { const t = [...document.querySelector('.member').querySelectorAll('.token')]; const a = (e) => \
         Number(/([\\d.]+)\\)$/.exec(e.style.backgroundColor)?.[1] ?? 0); return t.indexOf(t.reduce((b, e) => a(e) > a(b) ? e : b)); })()",
    );
    browser.point(&format!(".member .token[data-index='{strongest}']"));
    browser.eval("scrollTo(0, 0)");
    browser.screenshot(&out.join("focus.png"));
    browser.dark(true);
    browser.open(&format!("http://{address}/"));
    browser.wait(&format!("{DRAWN} >= 4"));
    browser.screenshot(&out.join("dark.png"));
    browser.size(390, 800);
    browser.open(&format!("http://{address}/#rollouts"));
    browser.wait("document.querySelector('.member .token')");
    browser.screenshot(&out.join("phone.png"));
    quiet(&browser);
}

/// The ends of a chart's axis for values.
fn ends(browser: &mut Browser, key: &str) -> Vec<f64> {
    // uPlot sets its scales behind the call that draws.
    let ends = browser.eval(&format!(
        "(async () => {{ const c = document.querySelector('.card[data-key={key:?}]').chart; c.draw(); \
         await new Promise((done) => setTimeout(done, 50)); const y = c.plot.scales.y; return [y.min, y.max]; }})()"
    ));
    ends.as_array().unwrap().iter().map(|end| end.as_f64().unwrap()).collect()
}

/// A constant had an axis of no height or of another size, a chart without values was a blank one.
#[test]
fn charts_of_odd_values_have_an_axis() {
    let Some(mut browser) = Browser::start() else { return };
    let place = tempfile::tempdir().unwrap();
    let line = |step: u64| {
        format!("{{\"step\":{step},\"zero\":0,\"five\":5,\"tiny\":1e-9,\"below\":-{step},\"none\":null}}\n")
    };
    std::fs::write(place.path().join("metrics.jsonl"), (1..60).map(line).collect::<String>()).unwrap();
    let address = serve(&[place.path()]);
    browser.open(&format!("http://{address}/"));
    assert_eq!(ends(&mut browser, "zero"), [-1.0, 1.0]);
    let five = ends(&mut browser, "five");
    assert!((five[0] - 2.5).abs() < 1e-9 && (five[1] - 7.5).abs() < 1e-9, "{five:?}");
    let tiny = ends(&mut browser, "tiny");
    assert!(tiny[0] > 0.0 && tiny[1] < 2e-9, "{tiny:?}");
    let none = "document.querySelector('.card[data-key=none]').chart.draw() ?? \
                document.querySelector('.card[data-key=none]').textContent.includes('No value can be drawn')";
    assert_eq!(browser.eval(none), json!(true));
    browser.eval("[...document.querySelectorAll('.toolbar label')].find((l) => l.textContent.includes('Log')).querySelector('input').click()");
    for key in ["five", "tiny"] {
        let found = ends(&mut browser, key);
        assert!(found[0] > 0.0 && found[0] < found[1], "{key}: {found:?}");
    }
    for key in ["zero", "below"] {
        let said = format!(
            "document.querySelector('.card[data-key={key}]').chart.draw() ?? \
             document.querySelector('.card[data-key={key}]').textContent"
        );
        let said = browser.eval(&said);
        let said = said.as_str().unwrap();
        assert!(said.contains("59 ≤ 0 not drawn") && said.contains("No value can be drawn"), "{said}");
    }
    // One step alone is in the middle of whole steps.
    std::fs::write(place.path().join("metrics.jsonl"), "{\"step\":7,\"five\":5}\n").unwrap();
    browser.open(&format!("http://{address}/"));
    ends(&mut browser, "five");
    let steps = browser
        .eval("(() => { const x = document.querySelector('.card').chart.plot.scales.x; return [x.min, x.max]; })()");
    assert_eq!(steps, json!([6, 8]));
    quiet(&browser);
}

#[test]
fn names_and_addresses_of_strangers_do_no_harm() {
    let Some(mut browser) = Browser::start() else { return };
    let place = tempfile::tempdir().unwrap();
    let (good, bad) = (place.path().join("good"), place.path().join("bad"));
    std::fs::create_dir_all(&good).unwrap();
    std::fs::create_dir_all(bad.join("metrics.jsonl")).unwrap();
    std::fs::write(bad.join("set_aside.jsonl"), "no line of JSON\n").unwrap();
    let names =
        ["__proto__", "constructor", "<img src=x onerror='window.harmed=1'>", &"x".repeat(4000), &"y/".repeat(2000)];
    let row: serde_json::Map<String, serde_json::Value> =
        names.iter().map(|name| (name.to_string(), json!(0.5))).collect();
    let lines = (1..50).map(|step| {
        let mut row = row.clone();
        row.insert("step".into(), json!(step));
        row.insert("stage".into(), json!(if step < 9 { "\u{202e}first" } else { "then" }));
        format!("{}\n", serde_json::Value::Object(row))
    });
    std::fs::write(good.join("metrics.jsonl"), lines.collect::<String>()).unwrap();
    let address = serve(&[&good, &bad]);
    // Every object has these, and none of them is a part of the page.
    for part in ["constructor", "__proto__", "toString"] {
        browser.open(&format!("http://{address}/#{part}"));
        browser.wait("document.querySelectorAll('.card').length >= 5");
    }
    let said = browser.eval("document.getElementById('main').textContent");
    assert!(said.as_str().unwrap().contains("bad: its curves cannot be shown: "), "{said}");
    browser.eval("document.querySelectorAll('.card').forEach((card) => card.chart.draw())");
    assert_eq!(browser.eval("document.documentElement.scrollWidth"), json!(1280));
    // A name that turns the direction of text turns its own alone: " from step 1" stays as it is.
    let behind = "(() => { const text = document.querySelector('.stages b').nextSibling, range = document.createRange(); \
        const left = (at) => { range.setStart(text, at); range.setEnd(text, at + 1); return range.getBoundingClientRect().left; }; \
        return left(1) < left(text.length - 1); })()";
    assert_eq!(browser.eval(behind), json!(true));
    assert!(browser.eval("window.harmed === undefined").as_bool().unwrap());
    browser.eval("location.hash = '#aside'");
    browser.wait("document.getElementById('main').textContent.includes('1 line cannot be read')");
    // The server says no more than that one of its files is none.
    assert!(browser.errors.iter().all(|error| error.contains("status of 500")), "{:#?}", browser.errors);
}
