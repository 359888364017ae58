//! Where the worker's program is, without configuration: the same search from Rust, C and Python.

use std::env;
use std::path::{Path, PathBuf};

use microfaas_sys::loaded_object;

use crate::NodeError;

/// File name of the worker's program.
pub const WORKER_PROGRAM: &str = "microfaas-worker";
/// Environment variable that names the program's path.
pub const WORKER_VARIABLE: &str = "MICROFAAS_WORKER";

/// The first of these that is a file: `explicit`; the path in [`WORKER_VARIABLE`]; then, for the executable or library that holds this code, its
/// folder, the folder above (test programs live one deeper), `../libexec/microfaas` and `../bin`; then the folders in `PATH`.
/// The first two must be right where they are given: nothing else is looked at then.
pub(crate) fn find(explicit: Option<&Path>) -> Result<PathBuf, NodeError> {
    let given = explicit.map(Path::to_path_buf).or_else(|| env::var_os(WORKER_VARIABLE).map(PathBuf::from));
    let looked = match given {
        Some(path) => vec![path],
        None => near_this_code().into_iter().chain(in_path()).collect(),
    };
    let found = looked.iter().find(|path| path.is_file()).and_then(|path| path.canonicalize().ok());
    found.ok_or(NodeError::WorkerNotFound { looked })
}

fn near_this_code() -> Vec<PathBuf> {
    let Some(object) = loaded_object::path().and_then(|path| path.canonicalize().ok()) else {
        return Vec::new();
    };
    let Some(folder) = object.parent() else { return Vec::new() };
    let above = folder.parent().unwrap_or(folder);
    [folder, above, &above.join("libexec/microfaas"), &above.join("bin")]
        .map(|place| place.join(WORKER_PROGRAM))
        .to_vec()
}

fn in_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(WORKER_PROGRAM))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_path_is_the_only_one_looked_at() {
        let Err(NodeError::WorkerNotFound { looked }) = find(Some(Path::new("/nonexistent/worker"))) else {
            panic!("found a worker where there is none");
        };
        assert_eq!(looked, [PathBuf::from("/nonexistent/worker")]);
        let here = env::current_exe().unwrap();
        assert_eq!(find(Some(&here)).unwrap(), here.canonicalize().unwrap());
    }

    #[test]
    fn places_near_a_test_include_the_folder_of_programs() {
        let here = env::current_exe().unwrap().canonicalize().unwrap();
        let programs = here.parent().unwrap().parent().unwrap();
        assert!(near_this_code().contains(&programs.join(WORKER_PROGRAM)));
    }
}
