//! The examples with services of other people: killed in the middle, they finish, and each request is sent once.
//!
//! The programs check themselves and say by their exit code what came of it; here they are run.

use std::process::Command;

fn run(program: &str) {
    let output = Command::new(program).output().expect("the program starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{err}");
}

#[test]
fn the_gmail_search_that_is_killed_finishes_with_each_request_sent_once() {
    run(env!("CARGO_BIN_EXE_gmail_search"));
}

#[test]
fn the_blog_generator_that_is_killed_finishes_with_each_request_sent_once() {
    run(env!("CARGO_BIN_EXE_blog"));
}
