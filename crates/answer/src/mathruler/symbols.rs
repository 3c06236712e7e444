//! The text that pylatexenc 2.11 puts in place of a symbol macro, for the names that occur in answers.

/// Replacement of a macro without arguments; `None` for a name that the converter does not know (it drops those).
pub(super) fn symbol(name: &str) -> Option<&'static str> {
    SYMBOLS.binary_search_by_key(&name, |&(known, _)| known).ok().map(|at| SYMBOLS[at].1)
}

/// Sorted by name.
#[rustfmt::skip]
const SYMBOLS: &[(&str, &str)] = &[
    ("Alpha", "Α"), ("Beta", "Β"), ("Cap", "⋒"), ("Chi", "Χ"), ("Cup", "⋓"), ("Delta", "Δ"), ("Epsilon", "Ε"),
    ("Eta", "Η"), ("Gamma", "Γ"), ("Iota", "Ι"), ("Kappa", "Κ"), ("Lambda", "Λ"), ("Leftarrow", "⇐"),
    ("Leftrightarrow", "⇔"), ("Longleftrightarrow", "⟺"), ("Longrightarrow", "⟹"), ("Mu", "Μ"), ("Nu", "Ν"),
    ("Omega", "Ω"), ("Omicron", "Ο"), ("Phi", "Φ"), ("Pi", "Π"), ("Psi", "Ψ"), ("Rho", "Ρ"),
    ("Rightarrow", "⇒"), ("Sigma", "Σ"), ("Tau", "Τ"), ("Theta", "Θ"), ("Upsilon", "Υ"), ("Vert", "‖"),
    ("Xi", "Ξ"), ("Zeta", "Ζ"), ("aa", "å"), ("ae", "æ"), ("aleph", "ℵ"), ("alpha", "α"), ("angle", "∠"),
    ("approx", "≈"), ("arccos", "arccos"), ("arccosh", "arccosh"), ("arcsin", "arcsin"),
    ("arcsinh", "arcsinh"), ("arctan", "arctan"), ("arctanh", "arctanh"), ("ast", "∗"), ("asymp", "≍"),
    ("backslash", "\\"), ("because", "∵"), ("beta", "β"), ("bigcap", "⋂"), ("bigcup", "⋃"),
    ("bigtriangleup", "△"), ("bigvee", "⋁"), ("bigwedge", "⋀"), ("blacksquare", "▪"), ("bowtie", "⋈"),
    ("boxplus", "⊞"), ("bullet", "∙"), ("cap", "∩"), ("cdot", "·"), ("cdots", "⋯"), ("chi", "χ"),
    ("circ", "∘"), ("complement", "∁"), ("cong", "≅"), ("coprod", "∐"), ("cos", "cos"), ("cosh", "cosh"),
    ("cup", "∪"), ("dag", "†"), ("dagger", "†"), ("ddots", "⋱"), ("delta", "δ"), ("diamond", "♢"),
    ("div", "÷"), ("doteq", "≐"), ("dots", "…"), ("dotsb", "…"), ("dotsc", "…"), ("dotsm", "…"),
    ("downarrow", "↓"), ("ell", "ℓ"), ("emptyset", "∅"), ("enskip", " "), ("epsilon", "ϵ"), ("equiv", "≡"),
    ("eta", "η"), ("exists", "∃"), ("exp", "exp"), ("flat", "♭"), ("forall", "∀"), ("frown", "⌢"),
    ("gamma", "γ"), ("ge", "≥"), ("geq", "≥"), ("geqq", "≧"), ("geqslant", "⩾"), ("gg", "≫"),
    ("guillemotleft", "«"), ("hbar", "ħ"), ("hookrightarrow", "↪"), ("hslash", "ℏ"), ("i", "ı"), ("id", "𝕀"),
    ("iiint", "∭"), ("iint", "∬"), ("in", "∈"), ("inf", "inf"), ("infty", "∞"), ("int", "∫"), ("iota", "ι"),
    ("j", "ȷ"), ("kappa", "κ"), ("l", "ł"), ("lVert", "‖"), ("lambda", "λ"), ("langle", "⟨"), ("lbrace", "{"),
    ("lceil", "⌈"), ("ldots", "…"), ("le", "≤"), ("leftarrow", "←"), ("leftrightarrow", "↔"), ("leq", "≤"),
    ("leqq", "≦"), ("leqslant", "⩽"), ("lfloor", "⌊"), ("lim", "lim"), ("liminf", "lim inf"),
    ("limsup", "lim sup"), ("ll", "≪"), ("ln", "ln"), ("lnot", "¬"), ("log", "log"), ("longleftarrow", "⟵"),
    ("longmapsto", "⟼"), ("longrightarrow", "⟶"), ("lozenge", "◊"), ("lvert", "|"), ("mapsto", "↦"),
    ("max", "max"), ("measuredangle", "∡"), ("mid", "|"), ("min", "min"), ("mp", "∓"), ("mu", "μ"),
    ("nabla", "∇"), ("natural", "♮"), ("neq", "≠"), ("nexists", "∄"), ("ni", "∋"), ("nmid", "∤"),
    ("notin", "∉"), ("nparallel", "∦"), ("nsubseteq", "⊈"), ("nu", "ν"), ("o", "ø"), ("odot", "⊙"),
    ("oe", "œ"), ("oint", "∮"), ("omega", "ω"), ("omicron", "ο"), ("ominus", "⊖"), ("oplus", "⊕"),
    ("otimes", "⊗"), ("parallel", "∥"), ("partial", "∂"), ("perp", "⊥"), ("phi", "ϕ"), ("pi", "π"),
    ("pm", "±"), ("prec", "≺"), ("preceq", "≼"), ("prime", "'"), ("prod", "∏"), ("propto", "∝"), ("psi", "ψ"),
    ("qquad", "    "), ("quad", "  "), ("rVert", "‖"), ("rangle", "⟩"), ("rbrace", "}"), ("rceil", "⌉"),
    ("rfloor", "⌋"), ("rho", "ρ"), ("rightangle", "∟"), ("rightarrow", "→"), ("rightleftharpoons", "⇌"),
    ("rvert", "|"), ("setminus", "∖"), ("sharp", "♯"), ("sigma", "σ"), ("sim", "∼"), ("simeq", "≃"),
    ("sin", "sin"), ("sinh", "sinh"), ("smile", "⌣"), ("square", "□"), ("ss", "ß"), ("star", "⋆"),
    ("subset", "⊂"), ("subseteq", "⊆"), ("subsetneq", "⊊"), ("succ", "≻"), ("succeq", "≽"), ("sum", "∑"),
    ("sup", "sup"), ("supset", "⊃"), ("supseteq", "⊇"), ("supsetneq", "⊋"), ("surd", "√"), ("tan", "tan"),
    ("tanh", "tanh"), ("tau", "τ"), ("textasciitilde", "~"), ("textbackslash", "\\"), ("textbullet", "•"),
    ("textcelsius", "℃"), ("textcent", "¢"), ("textdegree", "°"), ("textdiv", "÷"), ("textdollar", "$"),
    ("textellipsis", "…"), ("textemdash", "—"), ("textendash", "–"), ("texteuro", "€"), ("textonehalf", "½"),
    ("textonequarter", "¼"), ("textpm", "±"), ("textsterling", "£"), ("textthreequarters", "¾"),
    ("textthreesuperior", "³"), ("texttimes", "×"), ("texttwosuperior", "²"), ("therefore", "∴"),
    ("theta", "θ"), ("times", "×"), ("to", "→"), ("top", "⊤"), ("triangledown", "▿"), ("triangleleft", "◃"),
    ("triangleq", "≜"), ("triangleright", "▹"), ("uparrow", "↑"), ("upsilon", "υ"), ("varepsilon", "ε"),
    ("varnothing", "∅"), ("varphi", "φ"), ("varpi", "ϖ"), ("varrho", "ϱ"), ("varsigma", "ς"),
    ("vartheta", "ϑ"), ("vartriangle", "▵"), ("vdots", "⋮"), ("vee", "∨"), ("vert", "|"), ("wedge", "∧"),
    ("wp", "℘"), ("xi", "ξ"), ("zeta", "ζ"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted() {
        assert!(SYMBOLS.is_sorted_by_key(|&(name, _)| name));
        assert_eq!(symbol("pi"), Some("π"));
        assert_eq!(symbol("foo"), None);
    }
}
