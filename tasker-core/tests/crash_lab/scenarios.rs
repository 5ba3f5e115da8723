//! The tasks of the laboratory. Each gives the same result and makes the same calls in whatever order answers arrive.

/// A task (with the tasks that it calls) and how it ends without a fault.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Name and source; the first one is the root.
    pub(crate) tasks: &'static [(&'static str, &'static str)],
    /// Result as JSON text, or the code of the failure after `!`.
    pub(crate) result: &'static str,
    /// Ids of the calls that are performed, sorted.
    pub(crate) calls: &'static [&'static str],
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "sequential",
        tasks: &[(
            "sequential",
            "module.exports = async (input, { tools }) => {
                const done = [];
                for (const id of ['a', 'b', 'c']) done.push(await tools.lab.do({ id, after: done }));
                return done;
            }",
        )],
        result: r#"["a!","b!","c!"]"#,
        calls: &["a", "b", "c"],
    },
    Scenario {
        name: "parallel",
        tasks: &[(
            "parallel",
            "module.exports = async (input, { tools }) => {
                const done = await Promise.all(['a', 'b', 'c', 'd'].map((id) => tools.lab.do({ id })));
                return [done, await tools.lab.do({ id: 'e', after: done })];
            }",
        )],
        result: r#"[["a!","b!","c!","d!"],"e!"]"#,
        calls: &["a", "b", "c", "d", "e"],
    },
    Scenario {
        name: "race",
        tasks: &[(
            "race",
            // The argument of the third call tells in which order the first two were delivered: it must never change.
            "module.exports = async (input, { tools }) => {
                const first = await Promise.race([tools.lab.do({ id: 'a' }), tools.lab.do({ id: 'b' })]);
                await tools.lab.do({ id: 'c', first });
                await Promise.race([tools.lab.do({ id: 'd' }), tools.sleep(86_400_000)]);
                return 'raced';
            }",
        )],
        result: r#""raced""#,
        calls: &["a", "b", "c", "d"],
    },
    Scenario {
        name: "nested",
        tasks: &[
            (
                "nested",
                "module.exports = async (input, { tools }) => {
                    const before = await tools.lab.do({ id: 'a' });
                    const inner = await tools.tasks.execute('second', { depth: 1 });
                    return [before, inner, await tools.lab.do({ id: 'e' })];
                }",
            ),
            (
                "second",
                "module.exports = async (input, { tools }) => {
                    const [inner, beside] = await Promise.all([tools.tasks.execute('third', { depth: 2 }), tools.lab.do({ id: 'b' })]);
                    return [inner, beside, await tools.lab.do({ id: 'd' })];
                }",
            ),
            (
                "third",
                "module.exports = async (input, { tools }) => [input.depth, await tools.lab.do({ id: 'c' })]",
            ),
        ],
        result: r#"["a!",[[2,"c!"],"b!","d!"],"e!"]"#,
        calls: &["a", "b", "c", "d", "e"],
    },
    Scenario {
        name: "caught",
        tasks: &[
            (
                "caught",
                "module.exports = async (input, { tools }) => {
                    const seen = [];
                    try { await tools.lab.refuse({ id: 'a' }); } catch (error) { seen.push(error.code); }
                    try { await tools.tasks.execute('failing', null); } catch (error) { seen.push(error.code); }
                    finally { seen.push(await tools.lab.do({ id: 'c' })); }
                    return seen;
                }",
            ),
            (
                "failing",
                "module.exports = async (input, { tools }) => { await tools.lab.refuse({ id: 'b' }); }",
            ),
        ],
        result: r#"["REFUSED","REFUSED","c!"]"#,
        calls: &["a", "b", "c"],
    },
    Scenario {
        name: "failed",
        tasks: &[(
            "failed",
            "module.exports = async (input, { tools }) => {
                await tools.lab.do({ id: 'a' });
                await tools.lab.refuse({ id: 'b' });
                await tools.lab.do({ id: 'never' });
            }",
        )],
        result: "!REFUSED",
        calls: &["a", "b"],
    },
    Scenario {
        name: "timer",
        tasks: &[(
            "timer",
            "module.exports = async (input, { tools }) => {
                const start = Date.now();
                const id = setTimeout(() => tools.lab.do({ id: 'never' }), 3_600_000);
                const a = await tools.lab.do({ id: 'a' });
                clearTimeout(id);
                await tools.sleep(7_000);
                const waited = Date.now() - start >= 7_000;
                const [b] = await Promise.all([tools.lab.do({ id: 'b' }), tools.sleep(1_500)]);
                return [a, waited, b];
            }",
        )],
        result: r#"["a!",true,"b!"]"#,
        calls: &["a", "b"],
    },
    Scenario {
        name: "unawaited",
        tasks: &[
            (
                "unawaited",
                "module.exports = async (input, { tools }) => {
                    tools.lab.do({ id: 'a' });
                    tools.tasks.execute('background', null);
                    const b = await tools.lab.do({ id: 'b' });
                    tools.lab.do({ id: 'c' });
                    return b;
                }",
            ),
            (
                "background",
                "module.exports = async (input, { tools }) => {
                    await tools.lab.do({ id: 'd' });
                    await tools.lab.do({ id: 'e' });
                }",
            ),
        ],
        result: r#""b!""#,
        calls: &["a", "b", "c", "d", "e"],
    },
    Scenario {
        name: "careful",
        tasks: &[(
            "careful",
            // `once` is never asked twice, `sure` is asked whether it happened: both are performed exactly once whatever happens.
            "module.exports = async (input, { tools }) => {
                const a = await tools.lab.once({ id: 'a' });
                const b = await tools.lab.sure({ id: 'b' });
                const [c, d] = await Promise.all([tools.lab.sure({ id: 'c' }), tools.lab.once({ id: 'd' })]);
                return [a, b, c, d];
            }",
        )],
        result: r#"["a!","b!","c!","d!"]"#,
        calls: &["a", "b", "c", "d"],
    },
];
