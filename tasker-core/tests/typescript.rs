//! Tasks in TypeScript.
#![cfg(feature = "typescript")]

use tasker_core::task::prepare;
use tasker_core::{Limits, TaskError, TaskOptions, TaskSource};

fn stripped(text: &str) -> Result<String, TaskError> {
    prepare(
        TaskSource::file("a.ts", text),
        &TaskOptions::default(),
        &Limits::default(),
    )
    .map(|task| task.program.entry.source)
}

/// Blanks as one, to compare what is left.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn types_become_blanks_and_nothing_moves() {
    let text = r"import type { A } from './a';
import { type B, c } from './c';
interface In<T = string> { id: T; more?: number }
type Out = { total: number };
declare const injected: string;
function over(a: string): void;
function over(a: any) { return a as unknown as string; }
abstract class Base<T> implements I, J { abstract m(): void; declare x: number; private readonly y?: string = 'ö'; z!: T; public async n?(this: Base<T>, q?: number): Promise<T> { return <any>this.z!; } [key: string]: any; }
export default async function run({ id, more = 1 }: In, context: { tools: any }): Promise<Out> {
  const list: Array<number> = [], map = new Map<string, number>();
  const f = <T,>(x: T, ...rest: T[]): T => x;
  try { over(id!) } catch (e: unknown) { throw e satisfies unknown }
  const g = c as any
  (1)
  return { total: f<number>(more) };
}
";
    let program = prepare(
        TaskSource::file("a.ts", text).module("c.ts", "export const c: number = 1;"),
        &TaskOptions::default(),
        &Limits::default(),
    )
    .unwrap()
    .program;
    let out = program.entry.source;
    assert_eq!(out.lines().count(), text.lines().count());
    for (before, after) in text.lines().zip(out.lines()) {
        assert_eq!(
            before.chars().count(),
            after.chars().count(),
            "{before}\n{after}"
        );
    }
    assert_eq!(
        words(&out),
        words(
            "; import { c } from './c'; ; ; ; ; function over(a ) { return a ; }
             class Base { ; ; y = 'ö'; z ; async n ( q ) { return this.z ; } ; }
             export default async function run({ id, more = 1 } , context ) {
             const list = [], map = new Map ();
             const f = (x , ...rest ) => x;
             try { over(id ) } catch (e ) { throw e }
             const g = c ; (1) return { total: f (more) }; }"
        )
    );
    assert_eq!(program.modules[0].source, "export const c         = 1;");
}

#[test]
fn what_is_more_than_a_type_is_refused_with_its_place() {
    for (text, what) in [
        ("enum A { B }\nexport default () => A.B", "an enum"),
        (
            "namespace N { export const a = 1 }\nexport default () => N.a",
            "a namespace",
        ),
        (
            "class A { constructor(private x: number) {} }\nexport default () => 1",
            "a parameter that is a property",
        ),
        (
            "import x = require('./x');\nexport default () => x",
            "an import with =",
        ),
        ("@d class A {}\nexport default () => 1", "a decorator"),
    ] {
        match stripped(text) {
            Err(TaskError::Syntax {
                line: 1, message, ..
            }) => assert!(message.contains(what), "{message}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}
