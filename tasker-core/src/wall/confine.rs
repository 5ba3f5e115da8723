//! The child gives up all that a VM does not need, on itself, before it reads task source.
//!
//! Linux, in this order: dies with its parent · a session of its own · no core files, no tracing · no new privileges · every descriptor
//! closed but the pipes · resource limits · landlock without a rule (where the kernel has it) · and, when its threads are there, a
//! seccomp filter for all of them, under which opening a file is refused and any other system call ends the process.
//! Elsewhere: what the system has; [`close_in`] says what is missing.
#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        reason = "descriptors that nobody here owns are closed, and counted; each call with its argument"
    )
)]

use std::fs::File;

use super::child::Orders;

/// Time on the processor that a child may take in its life, in seconds: a last line behind the host's watch. A child that reaches it is replaced.
#[cfg(unix)]
const CPU_SECONDS: u64 = 3_600;

/// Standard input as a descriptor of its own, without a buffer.
#[cfg(unix)]
pub(super) fn input() -> std::io::Result<File> {
    use std::os::fd::AsFd;
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// Standard output as a descriptor of its own, without a buffer.
#[cfg(unix)]
pub(super) fn output() -> std::io::Result<File> {
    use std::os::fd::AsFd;
    Ok(std::io::stdout().as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
pub(super) fn input() -> std::io::Result<File> {
    use std::os::windows::io::AsHandle;
    Ok(std::io::stdin().as_handle().try_clone_to_owned()?.into())
}

#[cfg(windows)]
pub(super) fn output() -> std::io::Result<File> {
    use std::os::windows::io::AsHandle;
    Ok(std::io::stdout().as_handle().try_clone_to_owned()?.into())
}

/// The descriptors that stay.
#[derive(Debug)]
pub(super) struct Pipes {
    #[cfg(target_os = "linux")]
    input: u32,
    #[cfg(target_os = "linux")]
    output: u32,
}

impl Pipes {
    #[cfg(target_os = "linux")]
    pub(super) fn new(input: &File, output: &File) -> Self {
        use std::os::fd::AsRawFd;
        Self {
            input: input.as_raw_fd() as u32,
            output: output.as_raw_fd() as u32,
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn new(_input: &File, _output: &File) -> Self {
        Self {}
    }
}

/// All but the filter of system calls. Returns what this system does not have.
#[cfg(not(unix))]
pub(super) fn close_in(_orders: Orders, _pipes: &Pipes) -> Result<Vec<String>, String> {
    Ok(vec![
        "limits of memory and CPU for the child, a filter of its system calls, and rules for its files and network: \
         this system's are not used"
            .to_owned(),
    ])
}

/// All but the filter of system calls. Returns what this system does not have.
#[cfg(all(unix, not(target_os = "linux")))]
pub(super) fn close_in(orders: Orders, _pipes: &Pipes) -> Result<Vec<String>, String> {
    use rustix::process::{Resource, setsid};

    setsid().map_err(|error| format!("it cannot have a session of its own: {error}"))?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, 0)?;
    limit(Resource::Cpu, CPU_SECONDS)?;
    limit(Resource::Data, orders.memory)?;
    Ok(vec![
        "a filter of the child's system calls, and rules for its files and network: this system has none that are used".to_owned(),
    ])
}

#[cfg(unix)]
fn limit(resource: rustix::process::Resource, most: u64) -> Result<(), String> {
    use rustix::process::{Rlimit, getrlimit, setrlimit};

    // A hard limit that is lower already stays.
    let most = getrlimit(resource)
        .maximum
        .map_or(most, |now| now.min(most));
    let both = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, both)
        .map_err(|error| format!("it cannot limit {resource:?} to {most}: {error}"))
}

/// All but the filter of system calls. Returns what this system does not have.
#[cfg(target_os = "linux")]
pub(super) fn close_in(orders: Orders, pipes: &Pipes) -> Result<Vec<String>, String> {
    use rustix::process::{
        DumpableBehavior, Resource, Signal, getppid, set_dumpable_behavior,
        set_parent_process_death_signal, setsid,
    };

    if std::env::vars_os().next().is_some() {
        return Err("it was given an environment".to_owned());
    }
    let cannot = |what: &'static str| move |error| format!("it cannot {what}: {error}");
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(cannot("die with its parent"))?;
    // The parent may have died before it was asked for.
    if getppid().is_none_or(|parent| parent.as_raw_nonzero().get() as u32 != orders.parent) {
        return Err("its parent is gone".to_owned());
    }
    setsid().map_err(cannot("have a session of its own"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(cannot("forbid to be traced"))?;
    rustix::thread::set_no_new_privs(true).map_err(cannot("give up new privileges"))?;
    close_all_but(pipes)?;
    let missing = forbid_files_and_network()?;

    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, 0)?;
    limit(Resource::Memlock, 0)?;
    limit(Resource::Msgqueue, 0)?;
    limit(Resource::Cpu, CPU_SECONDS)?;
    limit(Resource::Data, orders.memory)?;
    // Address space that the allocator reserves and does not use counts here, so there is room for it.
    limit(Resource::As, orders.memory.saturating_add(1 << 30))?;
    Ok(missing)
}

/// Closes every descriptor that was inherited, standard streams included.
#[cfg(target_os = "linux")]
fn close_all_but(pipes: &Pipes) -> Result<(), String> {
    let (low, high) = (pipes.input.min(pipes.output), pipes.input.max(pipes.output));
    for (from, end) in [(0, low), (low + 1, high), (high + 1, u32::MAX)] {
        if from == end {
            continue;
        }
        // SAFETY: only descriptors that no value in this process owns: the kept ones are the only files that were opened here,
        // standard streams are not used any more (writing to one fails, which is what is wanted), and others are inherited.
        let closed = unsafe { libc::close_range(from, end - 1, 0) };
        if closed != 0 {
            let error = std::io::Error::last_os_error();
            return Err(format!(
                "it cannot close what it inherited (Linux 5.9 or newer is needed): {error}"
            ));
        }
    }
    Ok(())
}

/// The descriptors below `end` that are open: for [`super::probe`].
#[cfg(target_os = "linux")]
pub(super) fn descriptors(end: u32) -> Vec<u32> {
    (0..end)
        .filter(|number| {
            // SAFETY: asks for a flag of a number that may be no descriptor; changes nothing.
            let flags = unsafe { libc::fcntl(number.cast_signed(), libc::F_GETFD) };
            flags >= 0
        })
        .collect()
}

/// Landlock without a rule: nothing may be opened, made or run, nothing connected or bound, no other process be signalled.
#[cfg(target_os = "linux")]
fn forbid_files_and_network() -> Result<Vec<String>, String> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
        RulesetStatus, Scope,
    };

    const NEWEST: ABI = ABI::V6;
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(|error| format!("it cannot forbid itself files and network: {error}"))?;
    Ok(match restricted.ruleset {
        RulesetStatus::FullyEnforced => Vec::new(),
        RulesetStatus::PartiallyEnforced => {
            vec!["some rules of landlock: this kernel has an older version".to_owned()]
        }
        RulesetStatus::NotEnforced => {
            vec!["landlock: this kernel does not have it, or it is off".to_owned()]
        }
    })
}

/// The filter of system calls, for all threads. Nothing else can be done after it.
#[cfg(target_os = "linux")]
pub(super) fn seal(pipes: &Pipes) -> Result<(), String> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

    // No thread and no process begins any more; the filter says the same.
    limit(rustix::process::Resource::Nproc, 0)?;
    let cannot = |error: &dyn std::fmt::Display| {
        format!(
            "it cannot filter its system calls: {error}; Wall::process() needs a Linux with seccomp on x86_64, aarch64 or riscv64"
        )
    };
    let filter = |rules, otherwise, action| {
        let arch = std::env::consts::ARCH.try_into()?;
        BpfProgram::try_from(SeccompFilter::new(rules, otherwise, action, arch)?)
    };
    // Of several filters the strictest verdict counts. What this one refuses the other one must let pass.
    let refuses = filter(
        refused(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EACCES as u32),
    )
    .map_err(|error| cannot(&error))?;
    let kills = allowed(pipes)
        .and_then(|rules| filter(rules, SeccompAction::KillProcess, SeccompAction::Allow))
        .map_err(|error| cannot(&error))?;
    seccompiler::apply_filter_all_threads(&refuses).map_err(|error| cannot(&error))?;
    seccompiler::apply_filter_all_threads(&kills).map_err(|error| cannot(&error))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn seal(_pipes: &Pipes) -> Result<(), String> {
    Ok(())
}

#[cfg(target_os = "linux")]
type Rules = std::collections::BTreeMap<i64, Vec<seccompiler::SeccompRule>>;

/// Answered with an error instead of the end: glibc's allocator asks files below `/proc` and `/sys` how it may work, and does without.
#[cfg(target_os = "linux")]
fn refused() -> Rules {
    [libc::SYS_openat]
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect()
}

/// What QuickJS, the allocator, the pipes and an orderly end need.
#[cfg(target_os = "linux")]
fn allowed(pipes: &Pipes) -> Result<Rules, seccompiler::BackendError> {
    use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

    let is = |argument: u8, mask: u64, value: u64| {
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(mask),
            value,
        )
    };
    let all = u64::from(u32::MAX);
    let (exec, private) = (
        libc::PROT_EXEC as u64,
        (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64,
    );
    let kind = private | libc::MAP_SHARED as u64;
    let mut rules: Rules = [
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_madvise,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_sigaltstack,
    ]
    .into_iter()
    .map(|call| (call, Vec::new()))
    .chain(refused())
    .collect();
    rules.insert(
        libc::SYS_read,
        vec![SeccompRule::new(vec![is(0, all, pipes.input.into())?])?],
    );
    rules.insert(
        libc::SYS_write,
        vec![SeccompRule::new(vec![is(0, all, pipes.output.into())?])?],
    );
    // Memory of its own that is never code.
    rules.insert(
        libc::SYS_mmap,
        vec![SeccompRule::new(vec![
            is(2, exec, 0)?,
            is(3, kind, private)?,
        ])?],
    );
    rules.insert(
        libc::SYS_mprotect,
        vec![SeccompRule::new(vec![is(2, exec, 0)?])?],
    );
    // `abort` signals its own thread.
    rules.insert(
        libc::SYS_tgkill,
        vec![SeccompRule::new(vec![is(
            0,
            all,
            std::process::id().into(),
        )?])?],
    );
    Ok(rules)
}
