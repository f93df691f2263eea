//! The program's stack where it called the hook, as a site: without the frames of the hook's own.
//!
//! Which frames these are is found out when tracing starts, by an allocation; see [`crate::hook_frames`].

use super::Recorder;
use crate::c_symbols;
use crate::control;
use crate::hook_frames::HookFrames;
use crate::live::Detail;
use crate::platform;
use crate::scratch;
use crate::site::{SiteId, Sites};
use crate::thread::{self, Probe, ThreadState};
use crate::tracked;
use core::num::NonZeroU32;
use core::sync::atomic::Ordering::Relaxed;
use memtrace_unwind::{End, N_FRAMES_ON_STACK, Registers, StackHash, here};

impl Recorder {
    /// Finds out which frames are the hook's own by allocating; `false` if the hook was not called.
    pub(crate) fn find_hook_frames(&self) -> bool {
        let before = self.hook_frames.n_probes();
        // Named here because the ways in for tracked memory are not called by the probe.
        let entries = [
            Recorder::capture as *const (),
            tracked::track as *const (),
            c_symbols::memtrace_track as *const (),
        ];
        for entry in entries {
            self.track_frames.add_function_of(entry.addr() as u64);
        }
        thread::while_probing(Probe::Functions, platform::probe_global_allocator);
        // Stacks that were remembered may begin with frames now known to be the hook's.
        memtrace_unwind::forget_unloaded();
        self.hook_frames.n_probes() != before
    }

    /// Learns from an allocation that was made to find out about the hook itself.
    #[inline(always)]
    pub(super) fn probed(&self) {
        match thread::probe() {
            Probe::None => {}
            Probe::Functions => self.hook_frames.learn(),
        }
    }

    /// Returns the site of the caller of a function of this crate, and the detail of what it does now.
    #[inline(never)]
    pub(crate) fn capture(&self) -> (SiteId, Detail) {
        let here = here();
        thread::guarded(|state| {
            let site = self.site_without(&self.track_frames, here, state);
            (site, self.detail_now(|| self.number_of(state)))
        })
        .unwrap_or((SiteId::UNKNOWN, Detail::UNKNOWN))
    }

    /// Returns the site of the program's call of the hook, the recorder having been entered at `here`.
    #[inline(always)]
    pub(super) fn site_from(&self, here: Registers, state: &ThreadState) -> SiteId {
        self.site_without(&self.hook_frames, here, state)
    }

    /// The same if the thread has not recalled it.
    #[inline(always)]
    pub(super) fn site_unrecalled(&self, here: Registers, state: &ThreadState) -> SiteId {
        let limit = usize::from(control::limit());
        let sites = SitesWithout { sites: &self.sites, own: &self.hook_frames };
        self.captured(state.site_unrecalled(here, limit, &sites), limit, state)
    }

    /// Returns the site of the stack at `here`, without the frames of the recorder's own.
    #[inline(always)]
    fn site_without(&self, own: &HookFrames, here: Registers, state: &ThreadState) -> SiteId {
        let limit = usize::from(control::limit());
        let sites = SitesWithout { sites: &self.sites, own };
        self.captured(state.site_from(here, limit, &sites), limit, state)
    }

    /// The site of a stack that was captured within a limit, which was looked at before.
    #[inline(always)]
    fn captured(&self, site: Option<NonZeroU32>, limit: usize, state: &ThreadState) -> SiteId {
        // Had tracing been stopped and started with another before the capture began, it would be remembered for that
        // one. Where it was started later, all is void.
        if usize::from(control::limit()) != limit {
            state.forget();
        }
        match site {
            Some(number) => SiteId(number.get()),
            None => self.count_without_site(),
        }
    }

    #[cold]
    fn count_without_site(&self) -> SiteId {
        self.n_blocks_without_site.fetch_add(1, Relaxed);
        SiteId::UNKNOWN
    }
}

/// The table of sites, as captures that leave own frames out see it.
///
/// One cache serves the hook and `track`, whose own frames differ. What it remembers is by the function
/// that a capture began in: one of `track`'s own, or whichever has called the hook.
struct SitesWithout<'a> {
    sites: &'a Sites,
    own: &'a HookFrames,
}

impl memtrace_unwind::Sites for SitesWithout<'_> {
    #[inline(always)]
    fn find(&self, hash: StackHash) -> Option<NonZeroU32> {
        NonZeroU32::new(self.sites.find(hash)?.get())
    }

    #[inline(always)]
    fn find_after(&self, last: u32, hash: StackHash) -> Option<NonZeroU32> {
        NonZeroU32::new(self.sites.find_after(SiteId(last), hash)?.get())
    }

    fn insert(&self, hash: StackHash, call_addrs: &[u64], end: End) -> Option<NonZeroU32> {
        NonZeroU32::new(self.sites.insert(hash, call_addrs, end)?.get())
    }

    fn with_buffer<R>(&self, len: usize, f: impl FnOnce(&mut [u64]) -> R) -> Option<R> {
        if len <= N_FRAMES_ON_STACK {
            return Some(f(&mut [0; N_FRAMES_ON_STACK]));
        }
        scratch::with_buffer(f)
    }

    #[inline(always)]
    fn is_own(&self, call_addr: u64) -> bool {
        self.own.contains(call_addr)
    }
}
