//! `new` and `build`.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use microfaas_build::{BuildOptions, Profile, SdkDependency, build as build_modules, scaffold};

use crate::args::{Build, New};
use crate::failure::Failure;

pub(crate) fn new(args: &New) -> Result<(), Failure> {
    scaffold(&args.dir, &SdkDependency::find())?;
    let dir = args.dir.display();
    let text = format!(
        "made {dir}: a function and a test of it\n\
         next:  cargo test --manifest-path {dir}/Cargo.toml\n       microfaas build {dir} -o modules\n"
    );
    anstream::stdout().write_all(text.as_bytes()).map_err(Failure::Stdout)
}

pub(crate) fn build(args: &Build) -> Result<(), Failure> {
    let mut options = BuildOptions::new(args.dirs.iter().cloned(), &args.out);
    options.profile = if args.dev { Profile::Dev } else { Profile::Release };
    options.target_dir.clone_from(&args.target_dir);
    options.verbose = args.verbose;

    let built = if stderr().is_terminal() && !args.verbose {
        let spinner = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
        spinner.enable_steady_tick(Duration::from_millis(100));
        let built = build_modules(&options, &mut |line| spinner.set_message(line.to_owned()));
        spinner.finish_and_clear();
        built?
    } else {
        build_modules(&options, &mut |line| {
            let _ = writeln!(stderr(), "{line}");
        })?
    };
    let mut out = anstream::stdout();
    for module in built {
        writeln!(out, "{}: {}", module.path.display(), module.functions.join(", "))
            .map_err(Failure::Stdout)?;
    }
    Ok(())
}
