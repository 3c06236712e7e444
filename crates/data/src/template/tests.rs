use std::time::{Duration, Instant};

use minijinja::context;

use super::*;

fn setup(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
}

fn template(source: &str) -> Result<Template, TemplateError> {
    Template::new("chat_template.jinja", source, setup)
}

fn render(source: &str) -> Result<String, TemplateError> {
    template(source)?.render(context! { content => "12 + 30", messages => vec!["a", "b"] })
}

/// Each of these would take hours, or gigabytes, or the whole stack.
#[test]
fn templates_that_never_end_or_grow_are_named() {
    let forty = |body: &str| {
        format!(
            "{{% set ns = namespace(x='aaaaaaaa', l=[1]) %}}{{% for i in range(40) %}}{body}{{% endfor %}}{{{{ ns.x }}}}"
        )
    };
    for source in [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}".to_owned(),
        "{% for i in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}".to_owned(),
        forty("{% set ns.x = ns.x ~ ns.x %}"),
        forty("{% set ns.x = ns.x + ns.x %}"),
        forty("{% set ns.x = ns.x * 8 %}"),
        forty("{% set ns.x = [ns.x, ns.x]|join %}"),
        forty("{% set ns.x = ''.join([ns.x, ns.x]) %}"),
        forty("{% set ns.x = ns.x|replace('a', 'aaaa') %}"),
        forty("{% set ns.x = ns.x.replace('a', 'aaaa') %}"),
        forty("{% set ns.x = '%s%s'|format(ns.x, ns.x) %}"),
        forty("{% set ns.x = '{0}{0}'.format(ns.x) %}"),
        forty("{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
        forty("{% set ns.x = ns.x|tojson|tojson|tojson %}"),
        forty("{% set ns.x = ns.x|escape|string|title %}{% set ns.x = ns.x ~ ns.x %}"),
        forty("{% set ns.l = ns.l + ns.l %}{% set ns.n = ns.l|list %}"),
        forty("{% set ns.l = [ns.l, ns.l] %}") + "{{ ns.l }}",
        forty("{% set ns.l = [ns.l, ns.l] %}") + "{{ ns.l == ns.l|list }}",
        forty("{% set ns.l = {'a': ns.l, 'b': ns.l} %}") + "{{ ns.l|tojson }}",
        "{{ content|indent(1000000000) }}".to_owned(),
        "{{ '\n\n\n\n'|indent(width=1000000000) }}".to_owned(),
        "{{ '%1000000000d'|format(1) }}".to_owned(),
        "{{ '{:>1000000000}'.format(content) }}".to_owned(),
        "{{ '%*d'|format(1000000000, 1) }}".to_owned(),
        "{{ messages|tojson(indent=1000000000) }}".to_owned(),
        "{{ messages|slice(1000000000)|list }}".to_owned(),
        "{{ messages|batch(1000000000, 'x')|list }}".to_owned(),
        "{{ messages|map('indent', 1000000000)|list }}".to_owned(),
        "{{ ([1] * 1000000000)|list }}".to_owned(),
        "{{ ([1] * 1000000000)|join(',') }}".to_owned(),
        "{{ 'x' * 100000000 }}".to_owned(),
        "{{ 'x' * (10 ** 8) }}".to_owned(),
        "{{ content * 100000000 }}".to_owned(),
        format!("{{% for i in range(99999) %}}{}{{% endfor %}}", "x".repeat(50_000)),
        "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}"
            .to_owned(),
        "{% set ns = namespace() %}{% set ns.self = ns %}{{ ns.self }}".to_owned(),
        "{% set ns = namespace(l=[1]) %}{% for i in range(99999) %}{% set ns.l = ns.l[:] %}{% endfor %}{{ ns.l }}"
            .to_owned(),
    ] {
        let start = Instant::now();
        let shown = guard::echo(&source);
        let error = match render(&source) {
            Err(TemplateError::Limit(text)) => text,
            // What the library refuses by itself is as good.
            Err(TemplateError::Failed(text)) if text.contains("too large") || text.contains("recursion") => text,
            other => panic!("{shown}: {:?}", other.map(|text| text.len())),
        };
        assert!(error.starts_with("chat_template.jinja: ") && error.len() < 600, "{shown}: {error}");
        println!("{:?} {shown}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(30), "{shown}: {:?}", start.elapsed());
    }
}

/// The parser and the compiler recurse along an expression; the longest one that is read must fit the stack.
#[test]
fn long_expressions_end_in_an_error_or_a_text() {
    let n = limits().template_bytes.size() - 200;
    for (open, link, close) in [
        ("{{ content", "|e", " }}"),
        ("{{ content", "|first", " }}"),
        ("{{ content", ".a", " }}"),
        ("{{ content", "[0]", " }}"),
        ("{{ content", "()", " }}"),
        ("{{ content", "~content", " }}"),
        ("{{ 1", "+1", " }}"),
        ("{{ content", "+1", " }}"),
        ("{{ content", " if content else content", " }}"),
        ("{{ content", " and content", " }}"),
        ("{{ ", "-", "1 }}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ ", "(", "1 }}"),
        ("{{ ", "[", "1 }}"),
        ("", "{% if 1 %}", ""),
        ("", "{% for i in [1] %}", ""),
        ("", "{{ content }}", ""),
    ] {
        let source = format!("{open}{}{close}", link.repeat(n / link.len()));
        let start = Instant::now();
        let _ = render(&source);
        println!("{:?} {link}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(30), "{link}: {:?}", start.elapsed());
    }
    let error = render(&"x".repeat(n + 300)).unwrap_err().to_string();
    assert!(error.contains("65636 bytes") && error.contains("template_bytes="), "{error}");
}

#[test]
fn checks_change_no_output() {
    for (source, text) in [
        (
            "{{ content|trim }} {{ 'a' * 3 }} {{ '=' * 20 ~ 'x' ~ '=' * 20 }}",
            "12 + 30 aaa ====================x====================",
        ),
        ("{% for m in messages %}{{ loop.index }}{{ m }}{% if not loop.last %}, {% endif %}{% endfor %}", "1a, 2b"),
        ("{% macro m(x, y=2) %}{{ x + y }}{{ caller() if caller }}{% endmacro %}{{ m(1) }}{{ m(1, y=5) }}", "36"),
        ("{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{% endcall %}", "[x]"),
        ("{{ messages|join('-') }}{{ messages|map('upper')|join(',') }}{{ messages|length }}", "a-bA,B2"),
        (
            "{{ 'x' in messages }}{{ 'a' in messages }}{{ 1 < 2 <= 2 }}{{ 5 % 3 }}{{ 7 // 2 }}{{ 2 ** 3 }}",
            "FalseTrueTrue238",
        ),
        ("{{ messages[0] }}{{ messages[-1] }}{{ content[:2] }}{{ content[::-1] }}{{ {'k': 1}.k }}", "ab1203 + 211"),
        ("{{ content.split(' + ')[1] }}{{ content.startswith('12') }}{{ '%03d'|format(7) }}", "30True007"),
        ("{% set ns = namespace(n=0) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "10"),
        ("{% if messages is defined and nothing is not defined %}{{ nothing }}yes{% endif %}", "yes"),
        ("{% for k, v in {'a': 1, 'b': 2}|items %}{{ k }}{{ v }}{% else %}none{% endfor %}", "a1b2"),
        ("{% set x %}<{{ content }}>{% endset %}{{ x }}{{ x|length }}", "<12 + 30>9"),
        ("{% filter upper %}abc{% endfilter %}{% block b %}B{{ 1 + 1 }}{% endblock %}", "ABCB2"),
        (
            "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}",
            "1(2(3))",
        ),
        (
            "{{ namespace(a=1).a }}{{ dict(a=2).a }}{{ (1, 2)|list }}{{ none }}{{ true and 'x' or 'y' }}",
            "12[1, 2]Nonex",
        ),
        (
            "{{ nothing|default('d') }}{{ 'b' if false }}{{ [3, 1, 2]|sort|first }}{{ 'a-b'|replace('-', '+') }}",
            "d1a+b",
        ),
    ] {
        assert_eq!(render(source).as_deref(), Ok(text), "{source}");
        // As the library renders it without checks.
        let mut plain = Environment::new();
        setup(&mut plain);
        let own = plain.render_str(source, context! { content => "12 + 30", messages => vec!["a", "b"] });
        assert_eq!(own.unwrap(), text, "{source}");
    }
}

#[test]
fn a_template_cannot_leave_the_checks() {
    for source in [
        "{% include 'template' %}",
        "{% extends 'template' %}",
        "{% import 'template' as t %}",
        "{{ debug() }}",
        "{{ content.replace(*['1', '2']) }}",
    ] {
        assert!(matches!(render(source), Err(TemplateError::Failed(_))), "{source}: {:?}", render(source));
    }
    // A variable of a check's name hides nothing.
    assert!(render("{% set bounds = 1 %}{{ content ~ bounds }}").is_ok());
}

#[test]
fn its_own_words_reach_no_terminal() {
    let source = "{{ content|nofilter }}";
    assert!(render(source).unwrap_err().to_string().starts_with("chat_template.jinja: "));
    let mut noisy = template("{{ raise(content) }}").unwrap();
    noisy.runtime.add_function("raise", |_: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("\u{1b}[2J{}", "x".repeat(100_000))))
    });
    let error = noisy.render(context! { content => "x" }).unwrap_err().to_string();
    assert!(error.len() < 600 && !error.contains('\u{1b}'), "{error}");
    // Large prompts are no attack.
    let large = "The sum of 1 and 2?\n".repeat(50_000);
    let text =
        template("{% if content is string %}{{ content|trim }}\n{% endif %}{{ content.split('?')|length }}").unwrap();
    let text = text.render(context! { content => large }).unwrap();
    assert!(text.ends_with("\n50001") && text.len() > 900_000);
}
