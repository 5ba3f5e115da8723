//! The program in the README is the example that CI runs.

#[test]
fn the_program_of_the_readme_is_the_hello_example() {
    let readme = include_str!("../../README.md");
    let hello = include_str!("../src/bin/hello.rs");
    let (_, block) = readme
        .split_once("```rust\n")
        .expect("README.md has a Rust block");
    let (block, _) = block.split_once("```").expect("the block ends");
    let (comment, program) = hello.split_once('\n').expect("hello.rs has lines");
    assert!(
        comment.starts_with("//!"),
        "hello.rs begins with its comment"
    );
    assert_eq!(
        block, program,
        "copy examples/src/bin/hello.rs without its first line into README.md"
    );
}
