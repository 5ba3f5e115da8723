use super::*;

fn fault(source: &str) -> Option<FaultKind> {
    Scan::new(source).run().err().map(|fault| fault.kind)
}

#[test]
fn deep_texts_are_refused_in_every_shape() {
    let many = 12_000;
    for unit in [
        "(",
        "[",
        "{",
        "!",
        "-",
        "- -",
        "a=>",
        "a=",
        "a?",
        "a?b:",
        "a**",
        "a+",
        "a.",
        "f(",
        "`${",
        "new ",
        "typeof ",
        "await ",
        "if(a)",
        "if(a){",
        "for(;;)",
        "while(1)",
        "if(a){}else ",
        "a:",
        "x={a:",
        "[...",
        "(')',",
        "(/)/,",
        "(/[/)]/,",
        "(`)`,",
        "(\n//)\n",
        "(/*)*/",
        "do ",
        "class A extends ",
        "function a(){",
        "a??",
        "a&&",
        "\"\".b(",
        "x=function(){",
        "\\u{61}=",
        "if(a)/)/.b(",
        "()=>({a:",
        "a?.[",
        "()()()",
        "do a;while(function(){do do b;while([",
        "if(a)if(b)c;else{",
        "if(a)if(b)c,[function(){",
        "a:b:c:d,[()=>{",
        "a:b:return function(){",
        "switch(a){default:",
        "try{",
        "label:{",
        "x=class{a=",
    ] {
        assert_eq!(
            fault(&unit.repeat(many)),
            Some(FaultKind::TooDeep),
            "{unit}"
        );
    }
}

#[test]
fn long_flat_texts_pass() {
    let many = 20_000;
    for unit in [
        "f(a, b);\n",
        "x = [1, 2];\n",
        "function f(a) { return a + 1 }\n",
        "const a = require('x')\n",
        "class A { m() { return 1 } n() {} }\n",
        "'(((';",
        "/((((/.test(a);",
        "`((((`;",
        "// ((((\n",
        "if (a) { b } else { c }\n",
        "a = {b: 1};",
        "// it's\n",
        "export const x = () => 1\n",
    ] {
        assert_eq!(fault(&unit.repeat(many)), None, "{unit}");
    }
    let list = format!("[{}]", "{a: [1], b: -2}, ".repeat(many));
    assert_eq!(fault(&list), None);
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_only_when_it_matters() {
    assert_eq!(fault("if (a) {}\n/b/.test(c)"), None);
    assert_eq!(fault("x = {} / 2 / 3"), None);
    assert_eq!(
        fault("if (a) {}\n/[\"]/.test(c)"),
        Some(FaultKind::Ambiguous)
    );
    assert_eq!(fault("a\n++\n/(/.x"), Some(FaultKind::Ambiguous));
    assert_eq!(fault("a(b) / c(d) / e"), None);
    assert_eq!(fault("if (a) /(/.test(b)"), None);
    assert_eq!(fault("x = a / b; y = '/'"), None);
    assert_eq!(
        fault(&"if\u{a0}(a) /\"/.x; ".repeat(6_000)),
        None,
        "no-break spaces part words"
    );
    let hidden = format!("if\u{a0}(a) /\"/.x; {}", "(".repeat(6_000));
    assert_eq!(fault(&hidden), Some(FaultKind::TooDeep));
    assert_eq!(fault("(<!-- )\n"), Some(FaultKind::HtmlComment));
    assert_eq!(fault("--> )\n"), Some(FaultKind::HtmlComment));
    assert_eq!(fault("while (i --> 0) {}"), None);
}

#[test]
fn statements_stay_open_over_semicolons_and_commas() {
    // Each level leaves a thousand statements open and is itself shallow.
    let level = |heads: &str, tail: &str| format!("{}{tail}", heads.repeat(1_000));
    for (heads, tail) in [
        ("do ", "b;while([function(){"),
        ("if(a)", "b;else [function(){"),
        ("if(a)", "b,[function(){"),
        ("a:", "b,[function(){"),
        ("a:", "return [function(){"),
        ("if(a)", "return [function(){"),
        ("for(;;)", "b,[function(){"),
    ] {
        let text = level(heads, tail).repeat(6);
        assert_eq!(fault(&text), Some(FaultKind::TooDeep), "{heads}{tail}");
        let flat = format!("{};\n", level(heads, "b")).repeat(6);
        assert_eq!(fault(&flat), None, "{heads}");
    }
}
