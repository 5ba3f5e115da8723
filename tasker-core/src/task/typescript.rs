//! TypeScript to JavaScript.

use super::TaskError;

/// Refuses: this build has no feature `typescript`.
pub(super) fn strip(file: &str, _source: &str) -> Result<String, TaskError> {
    Err(TaskError::TypeScriptOff {
        file: file.to_owned(),
    })
}
