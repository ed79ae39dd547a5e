//! Work per event, counted and compared with what is recorded: cost that crept in once does not creep in again. Nothing is timed, so that the
//! answer is the same on a busy machine.
//!
//! The example `work_per_event` of the exchange does a fixed piece of work in stages, from a publisher's batch to offline verification. For each
//! stage, all threads together, divided by the events that passed it:
//!
//! | counter | who counts, and what |
//! |---|---|
//! | allocations, allocated bytes | the program's allocator: allocations and reallocations; bytes asked for, growth only of the latter |
//! | hashes, hashed bytes | the crate `crypto`: SHA-256 digests, and bytes that went into them without padding |
//! | signatures made, signatures verified | the crate `crypto` |
//! | copied bytes | `valgrind --tool=dhat --mode=copy`: bytes that calls of `memcpy`, `memmove` and their kind in libc moved; copies of a few bytes that the compiler writes out in place, and those of the kernel, are not among them |
//! | instructions | `valgrind --tool=callgrind`: those of functions whose name has one of our crates in it, without what they call; `crypto` is left out, since valgrind's processor lacks the instructions for SHA-256 |
//! | syncs, writes, reads, other file calls | `strace -f`: system calls |
//!
//! The build profile is `count` of the top manifest. Callgrind writes down its counts at each stage's boundary, strace shows a call there, and dhat finds
//! the stage on the stack of each copy.

mod record;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::advisories::build_folder;
use crate::process::{cargo, command, output, run_shown};

use record::{Figure, RECORD, Record};

const EXAMPLE: &str = "work_per_event";
const PROFILE: &str = "count";
/// Named by the example where a stage begins, and after the last: its function, and the file that it looks for.
const BOUNDARY: &str = "stage_boundary";

/// A stage of the example.
struct Stage {
    name: &'static str,
    /// Whether it is the product's work; the others prepare or connect.
    is_counted: bool,
    /// Parts of names of functions that are on the stack only where this stage copies: its own, and those that run for it on other threads.
    on_stack: &'static [&'static str],
}

const fn stage(name: &'static str, is_counted: bool, on_stack: &'static [&'static str]) -> Stage {
    Stage {
        name,
        is_counted,
        on_stack,
    }
}

/// In their order. What `prepare` does on those other threads is subtracted.
const STAGES: [Stage; 8] = [
    stage("prepare", false, &["work_per_event::prepare"]),
    stage("publish", true, &["Line::publish"]),
    stage("seal", true, &["Line::seal"]),
    stage(
        "append",
        true,
        &["Line::append", "countersign_exchange::pipeline::append::"],
    ),
    stage("deliver", true, &["Line::deliver"]),
    stage("join", false, &["Line::join"]),
    stage("take", true, &["Line::take"]),
    stage("verify", true, &["Line::verify", "countersign_audit::"]),
];

const LAST_STAGE: &str = STAGES[STAGES.len() - 1].name;

/// Programs that count, with the Debian package of each; they go by the same name.
const PROGRAMS: [&str; 2] = ["valgrind", "strace"];

/// `cargo xtask bench --quick`.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    if let Some(program) = missing_program(root) {
        return Err(Failure::new(
            format!("`{program}` is missing, which counts what the program itself can not"),
            format!("install it, on Debian: apt-get install {program}"),
        ));
    }
    match check(root)? {
        notice if notice.is_empty() => Ok(()),
        notice => Err(Failure::new(notice, "run it on the recorded processor")),
    }
}

/// The step of the check. CI installs the programs before it; elsewhere their absence is said and not counted as passed.
pub(crate) fn run_step(root: &Path) -> Result<String, Failure> {
    match missing_program(root) {
        Some(program) => Ok(format!(
            "work per event: NOT RUN, `{program}` is not installed (on Debian: apt-get install {program})"
        )),
        None => check(root),
    }
}

/// `cargo xtask bench --quick --record`.
pub(crate) fn write_record(root: &Path) -> Result<String, Failure> {
    let found = measure(root)?;
    fs::write(root.join(RECORD), found.text()).map_err(|error| {
        Failure::new(
            format!("`{RECORD}` could not be written: {error}"),
            "make the file writable",
        )
    })?;
    Ok(format!(
        "{RECORD} written: commit it with the reason for what has changed in it"
    ))
}

/// Gives the empty text, or why nothing was compared.
fn check(root: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(root.join(RECORD)).map_err(|error| {
        Failure::new(
            format!("`{RECORD}` could not be read: {error}"),
            "take it from git, or make it with `cargo xtask bench --quick --record`",
        )
    })?;
    let recorded = Record::parse(&text)?;
    let processor = std::env::consts::ARCH;
    if recorded.processor != processor {
        return Ok(format!(
            "work per event: NOT RUN, `{RECORD}` is of {} and this is {processor}",
            recorded.processor
        ));
    }
    let found = measure(root)?;
    let comparison = recorded.compare(&found);
    println!("{}", comparison.report());
    match comparison.failure() {
        None => Ok(String::new()),
        Some(what) => Err(Failure::new(
            what,
            format!(
                "find what does more for each event; where the growth is meant, `cargo xtask bench --quick --record`, and commit {RECORD} with the reason"
            ),
        )),
    }
}

fn missing_program(root: &Path) -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| {
        let mut version = command(root, program);
        version.arg("--version");
        output(version).is_err()
    })
}

fn measure(root: &Path) -> Result<Record, Failure> {
    let place = Place::new(root)?;
    let said = output(place.last_stage())?;
    let inside = tools::inside(&said)?;
    let instructions = place.instructions()?;
    let copied_before = place.copied_bytes(STAGES[0].name)?;
    let copied = place.copied_bytes(LAST_STAGE)?;
    let calls = place.system_calls()?;
    let mut figures = Vec::new();
    let counted = STAGES.iter().enumerate();
    for (index, stage) in counted.filter(|(_, stage)| stage.is_counted) {
        let (events, counts) = inside
            .get(stage.name)
            .ok_or_else(|| tools::unreadable(EXAMPLE, stage.name))?;
        let mut add = |counter: &str, count: u64| {
            figures.push(Figure::new(stage.name, counter, count, *events));
        };
        for (counter, count) in counts {
            add(counter, *count);
        }
        add(
            "copied bytes",
            copied[index].saturating_sub(copied_before[index]),
        );
        add(
            "instructions",
            instructions.get(index).copied().unwrap_or(0),
        );
        for (at, kind) in tools::CALL_KINDS.iter().enumerate() {
            add(kind.name, calls[index][at]);
        }
    }
    place.clear()?;
    Ok(Record {
        processor: std::env::consts::ARCH.to_owned(),
        compiler: compiler(root)?,
        figures,
    })
}

fn compiler(root: &Path) -> Result<String, Failure> {
    let program = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let mut version = command(root, &program);
    version.arg("--version");
    Ok(output(version)?.trim().to_owned())
}

/// The built program and a folder for its runs, which lies in the build folder: on a disk, not in memory.
struct Place<'a> {
    root: &'a Path,
    program: PathBuf,
    folder: PathBuf,
}

impl<'a> Place<'a> {
    fn new(root: &'a Path) -> Result<Self, Failure> {
        let mut build = cargo(root);
        build.args([
            "build",
            "--locked",
            "--profile",
            PROFILE,
            "--package",
            "countersign-exchange",
            "--features",
            "count",
            "--example",
            EXAMPLE,
        ]);
        run_shown(build, "fix what the compiler says")?;
        let build_folder = build_folder(root);
        let place = Self {
            root,
            program: build_folder.join(PROFILE).join("examples").join(EXAMPLE),
            folder: build_folder.join("xtask").join("work-per-event"),
        };
        place.clear()?;
        fs::create_dir_all(&place.folder).map_err(|error| place.failed(&error))?;
        Ok(place)
    }

    fn clear(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed(&error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::new(
            format!("`{}`: {error}", self.folder.display()),
            "make room in the build folder, and make it writable",
        )
    }

    /// Adds program and arguments for a run that ends with `stage`.
    fn run(&self, mut tool: Command, stage: &str) -> Command {
        tool.arg(&self.program)
            .arg(self.folder.join("run"))
            .arg(stage);
        tool
    }

    fn last_stage(&self) -> Command {
        let mut plain = command(self.root, &self.program.to_string_lossy());
        plain.arg(self.folder.join("run")).arg(LAST_STAGE);
        plain
    }

    /// Runs, and removes what the run left, so that the next one begins alike.
    fn finish(&self, run: Command) -> Result<(), Failure> {
        let run_folder = self.folder.join("run");
        if run_folder.exists() {
            fs::remove_dir_all(&run_folder).map_err(|error| self.failed(&error))?;
        }
        output(run)?;
        fs::remove_dir_all(&run_folder).map_err(|error| self.failed(&error))
    }

    fn read(&self, file: &str) -> Result<String, Failure> {
        fs::read_to_string(self.folder.join(file)).map_err(|error| self.failed(&error))
    }

    /// By stage: the first dump is of all before the first boundary.
    fn instructions(&self) -> Result<Vec<u64>, Failure> {
        let mut tool = command(self.root, "valgrind");
        tool.args([
            "--quiet",
            "--tool=callgrind",
            "--compress-strings=no",
            "--compress-pos=no",
        ]);
        tool.arg(format!("--dump-before=*{BOUNDARY}*"));
        tool.arg(format!(
            "--callgrind-out-file={}",
            self.folder.join("callgrind").display()
        ));
        self.finish(self.run(tool, LAST_STAGE))?;
        (1..=STAGES.len())
            .map(|part| {
                let file = format!("callgrind.{part}");
                tools::own_instructions(&self.read(&file)?)
                    .ok_or_else(|| tools::unreadable("callgrind", &file))
            })
            .collect()
    }

    /// By stage, in a run that ends with `last`.
    fn copied_bytes(&self, last: &str) -> Result<[u64; STAGES.len()], Failure> {
        let mut tool = command(self.root, "valgrind");
        // Deep enough to reach from any copy to the function of its stage.
        tool.args(["--quiet", "--tool=dhat", "--mode=copy", "--num-callers=80"]);
        tool.arg(format!(
            "--dhat-out-file={}",
            self.folder.join("dhat").display()
        ));
        self.finish(self.run(tool, last))?;
        let on_stack = STAGES.map(|stage| stage.on_stack);
        tools::copied_bytes(&self.read("dhat")?, &on_stack)
            .ok_or_else(|| tools::unreadable("dhat", "dhat"))
    }

    /// By stage.
    fn system_calls(&self) -> Result<Vec<[u64; tools::CALL_KINDS.len()]>, Failure> {
        let mut tool = command(self.root, "strace");
        tool.args(["-f", "-qq", "-o"])
            .arg(self.folder.join("strace"));
        self.finish(self.run(tool, LAST_STAGE))?;
        let stages = tools::system_calls(&self.read("strace")?, BOUNDARY);
        // What follows the last boundary is no stage.
        match stages.len() == STAGES.len() + 1 {
            true => Ok(stages),
            false => Err(tools::unreadable("strace", "a stage's boundary is missing")),
        }
    }
}
