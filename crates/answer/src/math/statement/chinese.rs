//! Statements in Chinese.

use super::has_value;
use crate::math::names::is_ideograph;

/// What may stand right before a value: words that say that something is it.
#[rustfmt::skip]
const PREDICATES: &[&str] = &[
    "答案是", "答案为", "答案应为", "答案", "等于", "就是", "而是", "应是", "应为", "应该是", "恰好是", "恰为", "是", "为", "得", "得到", "得出", "解得",
    "可得", "求得", "算得", "共", "共有",
    "一共有", "一共", "总共有", "总共", "有", "需要", "需", "要", "用", "花", "花了", "付", "即", "则", "故", "所以", "因此", "答", "解", "结果",
    "结果是", "结果为", "值为", "值是", "选", "剩",
    "剩下", "还剩", "多", "少", "长", "高", "宽", "重", "跑", "走", "行", "卖", "买", "分得", "拿", "吃", "看", "写", "做", "取", "只有", "仅有",
    "正好", "刚好", "恰好", "恰有", "约等于", "正确的是", "说法是",
    "达", "达到", "分别为", "分别是", "分别", "于是", "从而", "因而", "时", "，", "：", ":", ",", "和", "了", "在", "到", "占", "成",
];
/// What leaves a value as it is behind it, each behind the one before.
#[rustfmt::skip]
const TAILS: &[&str] = &[
    "。", "．", "，", "！", "了", "答", "故选", "符合题意", "即可", "即为所求", "为所求", "就是答案", "是答案", "是正确的", "是正确答案", "正确", "成立",
];
/// Classifiers: `个苹果`, `把椅子`.
#[rustfmt::skip]
const MEASURES: &[char] = &[
    '个', '只', '条', '把', '张', '本', '支', '枝', '块', '件', '台', '辆', '架', '艘', '座', '栋', '间', '层', '排', '行', '列', '组', '名',
    '位', '人', '口', '头', '匹', '朵', '棵', '株', '根', '颗', '粒',
    '滴', '片', '页', '题', '道', '种', '类', '次', '遍', '回', '步', '场', '局', '轮', '点', '角', '边', '周', '圈', '双', '对', '副', '套',
    '箱', '袋', '包', '瓶', '杯', '碗', '盒', '盘', '桶', '罐', '壶', '元',
    '岁', '年', '月', '日', '天', '时', '分', '秒', '米', '里', '克', '斤', '吨', '升', '度', '倍', '折', '项', '组', '段', '节', '届', '样',
    '枚', '束', '串', '堆', '批', '株', '亩', '顷', '寸', '尺', '丈', '级', '号', '班', '户', '家',
    '面', '环', '期', '部', '篇', '首', '幅', '条', '扇', '盏', '顶', '笔', '封', '单', '条', '股', '匝', '牛', '焦', '瓦', '伏', '安', '欧',
    '帕', '美', '英', '千', '毫', '厘', '平', '立', '小', '公', '摄', '库', '微', '兆', '赫',
];
/// Characters that turn a value beside them into a bound, a range, a denial or a guess.
#[rustfmt::skip]
const TURNS: &[&str] = &[
    "不", "非", "没", "未", "无", "否", "错", "误", "除", "或", "约", "左右", "上下", "以上", "以下", "以内", "以外", "至少", "至多", "最多", "最少",
    "起码", "超过", "大于", "小于", "少于", "多于", "高于",
    "低于", "介于", "之间", "不到", "不足", "接近", "将近", "几乎", "可能", "也许", "或许", "大概", "估计", "左", "附近", "之一", "其中一", "一个解",
    "一个根", "一个答案", "一个可能", "一种可能", "另", "其他", "其它", "等等", "排除", "假", "如果", "若", "猜", "似乎", "好像", "开外",
    "难道", "难说", "恐怕", "上界", "下界", "有余", "多个", "多种", "前后", "上限", "下限", "范围", "例如", "比如", "近",
];
/// Words with such a character in them that turn nothing.
#[rustfmt::skip]
const INNOCENT: &[&str] = &[
    "不等式", "不同", "不变", "无理数", "非负", "不重复", "无解", "除以", "除法", "整除", "无限", "无穷", "不在", "错位", "约分", "公约数", "左边", "左侧",
    "近似值", "最近", "附近", "若干", "非零", "未知数",
];
/// Most clauses in a row that one value may begin in.
const MAX_CLAUSES: usize = 8;
/// Longest phrase behind a value, in characters.
const MAX_PHRASE: usize = 12;

/// Whether a phrase turns the value beside it into something else.
fn turns(phrase: &str) -> bool {
    let mut phrase = phrase.to_owned();
    for word in INNOCENT {
        if phrase.contains(word) {
            phrase = phrase.replace(word, "");
        }
    }
    TURNS.iter().any(|word| phrase.contains(word))
}

/// Whether a phrase right behind a number says what is counted: a classifier, and perhaps a noun.
pub(super) fn is_measured(phrase: &str) -> bool {
    let phrase = phrase.trim_matches(['（', '）', '(', ')', ' ']);
    let first = phrase.chars().next();
    first.is_some_and(|c| MEASURES.contains(&c))
        && phrase.chars().count() <= MAX_PHRASE
        && !turns(phrase)
        && !phrase.contains(['是', '，'])
}

/// The value that a Chinese sentence states.
pub(super) fn stated(sentence: &str, readable: &dyn Fn(&str) -> bool) -> Option<String> {
    if ["如果", "假如", "除非", "若x", "若n", "当x", "当n"].iter().any(|word| sentence.contains(word)) {
        return None;
    }
    let sentence = shortened(sentence);
    // The last clause that states something.
    let clauses: Vec<&str> = clauses(sentence);
    let last = clauses.iter().rposition(|clause| has_value(clause) || clause.contains("答案"))?;
    if clauses[last + 1..].iter().any(|clause| turns(clause)) {
        return None;
    }
    // Several values in a row may hold commas themselves: the longest part that is understood.
    let from = clauses[..last]
        .iter()
        .rposition(|clause| clause.chars().any(is_ideograph) || !has_value(clause))
        .map_or(0, |at| at);
    (from..=last).take(MAX_CLAUSES).find_map(|first| {
        let start = clauses[first].as_ptr() as usize - sentence.as_ptr() as usize;
        let end = clauses[last].as_ptr() as usize - sentence.as_ptr() as usize + clauses[last].len();
        clause_value(sentence[start..end].trim(), readable)
    })
}

/// The parts between commas, outside of brackets and formulas.
fn clauses(sentence: &str) -> Vec<&str> {
    let (mut found, mut from, mut formula, mut depth) = (Vec::new(), 0, false, 0i32);
    for (at, c) in sentence.char_indices() {
        match c {
            '$' => formula = !formula,
            '(' | '（' | '[' | '{' => depth += 1,
            ')' | '）' | ']' | '}' => depth -= 1,
            '，' | ',' if !formula && depth <= 0 => {
                let thousands = c == ',' && sentence[at + 1..].starts_with(|c: char| c.is_ascii_digit());
                if !thousands {
                    found.push(&sentence[from..at]);
                    from = at + c.len_utf8();
                }
            }
            _ => {}
        }
    }
    found.push(&sentence[from..]);
    found
}

/// Without what explains: `因为...` behind a value, and what stands before `所以`.
fn shortened(sentence: &str) -> &str {
    let mut text = sentence;
    for word in ["所以", "因此", "综上"] {
        if let Some(at) = text.rfind(word)
            && has_value(&text[at..])
        {
            text = &text[at + word.len()..];
        }
    }
    for word in ["因为", "理由", "由于", "而不是", "不是"] {
        if let Some(at) = text.find(word)
            && has_value(&text[..at])
            // `7不是答案` denies what stands before it.
            && (word != "不是" || has_value(&text[at..]))
        {
            text = text[..at].trim_end_matches(['，', ',', ' ']);
        }
    }
    text
}

/// `lead value tail`.
fn clause_value(clause: &str, readable: &dyn Fn(&str) -> bool) -> Option<String> {
    let clause = clause.trim_end_matches(['。', '．', '.', ' ', '，']);
    if readable(clause) && has_value(clause) && !turns(clause) {
        return Some(clause.to_owned());
    }
    // A lead of words up to the value, or to the last word that says what it is.
    let mut places: Vec<usize> = Vec::new();
    for (at, c) in clause.char_indices().rev() {
        let after = at + c.len_utf8();
        if (is_ideograph(c) || matches!(c, ':' | '：')) && places.len() < 40 {
            places.push(after);
        }
    }
    for at in places {
        let (lead, rest) = clause.split_at(at);
        let predicate = PREDICATES.iter().any(|word| lead.ends_with(word));
        // `6到7`, `9和10`: what joins two values begins none.
        let joins = ["到", "和", "，", ",", "在", "有"].iter().any(|word| lead.ends_with(word)) && has_value(lead);
        if !predicate || joins || turns(lead) {
            continue;
        }
        let rest = rest.trim_start_matches([' ', ':', '：', '=']);
        if let Some(value) = without_tail(rest, readable) {
            return Some(value);
        }
    }
    without_tail(clause, readable).filter(|value| has_value(value))
}

/// The value of a text when only what is counted follows it, or what confirms it.
fn without_tail(text: &str, readable: &dyn Fn(&str) -> bool) -> Option<String> {
    let text = text.trim().trim_end_matches(['。', '．', ' ', '，']);
    if text.is_empty() || turns(text) && text.chars().any(is_ideograph) && has_value(text) && !text.contains('或') {
        return None;
    }
    if readable(text) {
        return Some(text.to_owned());
    }
    let first = text.char_indices().find(|(at, c)| is_ideograph(*c) && *at > 0 && has_value(&text[..*at]))?.0;
    let (value, mut tail) = text.split_at(first);
    if !readable(value.trim()) {
        return None;
    }
    loop {
        let before = tail.len();
        for word in TAILS {
            tail = tail.strip_prefix(word).unwrap_or(tail).trim_start();
        }
        if tail.is_empty() || is_measured(tail) {
            return Some(value.trim().to_owned());
        }
        if tail.len() == before {
            return None;
        }
    }
}
