//! Libraries that are unloaded, and others that come to their place.

use super::unwind::{is_as_learned, prepare};
use crate::{End, StackBounds, Walk, capture, forget_unloaded};
extern crate std;
use core::hint::black_box;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{env, format, fs, println, process, vec::Vec};

/// One of these tests at a time: all unload and forget what is the process's.
static IS_FREE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    IS_FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A folder of libraries, of which each has a function of the same size with another frame.
struct Libraries(PathBuf);

impl Libraries {
    fn new(name: &str) -> Self {
        let dir = env::temp_dir().join(format!("memtrace-unwind-{}-{name}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn build(&self, frame_size: u32, options: &[&str]) -> PathBuf {
        let source = self.0.join(format!("frame_{frame_size}.c"));
        let library = source.with_extension("so");
        let text = format!(
            "#define CALL(name)                         \\
                void name(void (*f)(void *), void *data) {{ \\
                    volatile char frame[{frame_size}];   \\
                    frame[0] = 1;                       \\
                    f(data);                            \\
                    frame[1] = 2;                       \\
                }}
            CALL(call)
            CALL(call_otherwise)
            "
        );
        fs::write(&source, text).unwrap();
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-fomit-frame-pointer", "-fno-stack-protector"])
            .arg("-fasynchronous-unwind-tables")
            .args(options)
            .arg("-o")
            .args([&library, &source])
            .status()
            .expect("a C compiler is needed");
        assert!(status.success());
        library
    }
}

impl Drop for Libraries {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Call = extern "C" fn(extern "C" fn(*mut libc::c_void), *mut libc::c_void);

struct Library {
    handle: *mut libc::c_void,
    call: Call,
    call_otherwise: Call,
}

impl Library {
    fn open(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: a library of the test's own, which runs nothing on being loaded.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null());
        let [call, call_otherwise] = [c"call", c"call_otherwise"].map(|name| {
            // SAFETY: a live handle and a terminated name.
            let function = unsafe { libc::dlsym(handle, name.as_ptr()) };
            assert!(!function.is_null());
            // SAFETY: both functions have this type.
            unsafe { core::mem::transmute::<*mut libc::c_void, Call>(function) }
        });
        Self { handle, call, call_otherwise }
    }

    fn addr(&self) -> u64 {
        self.call as usize as u64
    }

    /// Calls back from inside the library.
    fn call(&self, function: Call, f: &mut dyn FnMut()) {
        extern "C" fn back(data: *mut libc::c_void) {
            // SAFETY: the reference passed below.
            let f = unsafe { &mut *data.cast::<&mut dyn FnMut()>() };
            f();
        }
        let mut f = f;
        function(back, (&raw mut f).cast());
    }

    /// Captures inside a function: the frames, and the address in the function.
    fn capture(&self, function: Call) -> (Vec<u64>, End, u64) {
        let mut frames = [0; 200];
        let mut walk = Walk { len: 0, end: End::Limit };
        self.call(function, &mut || walk = capture(&StackBounds::current(), &mut frames));
        let frames = &frames[..walk.len];
        let inside = frames.iter().find(|addr| addr.wrapping_sub(function as usize as u64) < 128);
        (frames.to_vec(), walk.end, *inside.unwrap())
    }

    fn is_as_learned(&self, call_addr: u64) -> bool {
        let mut answer = false;
        self.call(self.call, &mut || answer = is_as_learned(call_addr));
        answer
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: a live handle; nothing of the library is in use.
        assert_eq!(unsafe { libc::dlclose(self.handle) }, 0);
    }
}

/// What a look costs.
fn cost_of(call_addr: u64) -> Duration {
    const N: u32 = 100_000;
    let start = Instant::now();
    for _ in 0..N {
        assert!(is_as_learned(black_box(call_addr)));
    }
    start.elapsed() / N
}

#[test]
fn an_address_seen_for_the_first_time_shows_that_the_others_are_not_what_they_were() {
    let _alone = alone();
    prepare();
    let libraries = Libraries::new("first-seen");
    let paths = [0x220, 0x320].map(|frame_size| libraries.build(frame_size, &[]));
    let mut n_noticed = 0;
    for i in 0..20 {
        let first = Library::open(&paths[i % 2]);
        let (first_addr, first_frames) = (first.addr(), first.capture(first.call));
        assert_eq!(first_frames.1, End::Outermost);
        drop(first);
        let second = Library::open(&paths[1 - i % 2]);
        if second.addr() == first_addr {
            // Nothing was captured in this function before.
            assert_eq!(second.capture(second.call_otherwise).1, End::Outermost);
            assert_eq!(second.capture(second.call).1, End::Outermost);
            n_noticed += 1;
        }
        forget_unloaded();
    }
    assert!(n_noticed > 0);
}

/// Loads each in the place of the other, and looks whether that is noticed.
fn check(name: &str, options: &[&str]) {
    let _alone = alone();
    prepare();
    let libraries = Libraries::new(name);
    let paths = [0x220, 0x320].map(|frame_size| libraries.build(frame_size, options));
    let (mut n_noticed, mut n_elsewhere) = (0, 0);
    for i in 0..20 {
        forget_unloaded();
        let first = Library::open(&paths[i % 2]);
        let first_addr = first.addr();
        let (_, end, call_addr) = first.capture(first.call);
        assert_eq!(end, End::Outermost);
        assert!(first.is_as_learned(call_addr));
        if i == 0 {
            println!("{name}: {:?} an address", cost_of(call_addr));
        }
        drop(first);

        // The same library once more is no other.
        let again = Library::open(&paths[i % 2]);
        if again.addr() == first_addr {
            assert!(again.is_as_learned(call_addr));
            assert_eq!(again.capture(again.call).1, End::Outermost);
        }
        drop(again);

        let second = Library::open(&paths[1 - i % 2]);
        if second.addr() != first_addr {
            n_elsewhere += 1;
            continue;
        }
        assert!(!second.is_as_learned(call_addr));
        assert!(!second.is_as_learned(call_addr), "nothing agrees before all is forgotten");
        forget_unloaded();
        let (frames, end, second_call_addr) = second.capture(second.call);
        assert_eq!((end, second_call_addr), (End::Outermost, call_addr), "{frames:x?}");
        assert!(second.is_as_learned(call_addr));
        n_noticed += 1;
    }
    println!("{name}: noticed {n_noticed} times, loaded elsewhere {n_elsewhere} times");
    forget_unloaded();
    assert!(n_noticed > 0);
}

#[test]
fn another_library_at_the_same_address_is_noticed_by_its_build_id() {
    check("with-build-id", &["-Wl,--build-id=sha1"]);
}

#[test]
fn another_library_at_the_same_address_is_noticed_without_a_build_id() {
    check("without-build-id", &["-Wl,--build-id=none"]);
}

#[test]
fn learned_rules_are_those_of_the_code_that_is_running() {
    let _alone = alone();
    prepare();
    let here = learned_rules_are_those_of_the_code_that_is_running as *const () as u64;
    assert!(is_as_learned(here));
    let mut frames = [0; 200];
    let walk = capture(&StackBounds::current(), &mut frames);
    for &call_addr in &frames[..walk.len] {
        assert!(is_as_learned(call_addr), "{call_addr:#x}");
    }
    println!("{:?} an address", cost_of(frames[0]));
}
