//! The unwind tables of the program, of the libraries that it loads and of the vdso, row by row,
//! against gimli's own machines for programs and expressions.
#![cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, EvaluationResult, Expression,
    LittleEndian, Location, Operation, RegisterRule, UnwindContext, UnwindSection, UnwindTableRow,
    Value, X86_64,
};
use memtrace_unwind::{CfaBase, Registers, Rule, UnwindTables, function_range};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_void};

type Bytes = EndianSlice<'static, LittleEndian>;

const PT_LOAD: u32 = 1;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;

/// The tables of an object that stays loaded.
struct Object {
    path: String,
    header: &'static [u8],
    frames: &'static [u8],
    tables: UnwindTables<'static>,
}

impl Object {
    fn addr(bytes: &[u8]) -> u64 {
        bytes.as_ptr() as u64
    }
}

/// All objects loaded now, with these libraries where there are any.
fn objects() -> Vec<Object> {
    for name in [c"libm.so.6", c"libgcc_s.so.1", c"libcrypto.so.3", c"libstdc++.so.6"] {
        // SAFETY: loads a library of the system, which runs nothing of note on being loaded.
        unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    }
    unsafe extern "C" fn visit(
        info: *mut libc::dl_phdr_info,
        _: usize,
        objects: *mut c_void,
    ) -> c_int {
        // SAFETY: the vector passed below.
        let objects = unsafe { &mut *objects.cast::<Vec<Object>>() };
        // SAFETY: the loader passes a valid structure.
        let info = unsafe { &*info };
        // SAFETY: the loader tells where and how many the program headers are.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let from = |addr: u64| {
            let segment = headers
                .iter()
                .filter(|header| header.p_type == PT_LOAD)
                .map(|header| (info.dlpi_addr + header.p_vaddr, header.p_memsz))
                .map(|(start, len)| start..start + len)
                .find(|segment| segment.contains(&addr))
                .unwrap();
            let len = (segment.end - addr) as usize;
            // SAFETY: a mapped segment of an object that is never unloaded.
            unsafe { std::slice::from_raw_parts(addr as *const u8, len) }
        };
        let Some(index) = headers.iter().find(|header| header.p_type == PT_GNU_EH_FRAME) else {
            return 0;
        };
        let header = from(info.dlpi_addr + index.p_vaddr);
        let frames = from(UnwindTables::frames_addr(header, Object::addr(header)).unwrap());
        // SAFETY: a terminated string.
        let path = unsafe { CStr::from_ptr(info.dlpi_name) }.to_string_lossy().into_owned();
        let tables = UnwindTables::new(header, Object::addr(header), frames, Object::addr(frames));
        objects.push(Object { path, header, frames, tables });
        0
    }
    let mut objects = Vec::<Object>::new();
    // SAFETY: the function takes what is passed.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut objects).cast()) };
    objects
}

#[derive(Debug, Default)]
struct Counts {
    functions: u64,
    /// Entries that another one hides from a search: the same code twice.
    hidden: u64,
    rows: u64,
    /// Interpreted for what no call is made in: the end of an epilogue, where registers still are where
    /// they were popped from, below the frame.
    popped: u64,
    /// Other interpreted ones.
    interpreted: u64,
    unknown: u64,
    outermost: u64,
    /// Rows without a step, because they need a register that a walk lacks, by the registers.
    unsupported: BTreeMap<String, u64>,
    most_instruction_bytes: usize,
    expressions: BTreeMap<String, u64>,
}

#[test]
fn every_row_of_every_object_is_understood_as_gimli_understands_it() {
    let objects = objects();
    for part in ["", "libc.so", "ld-linux", "libgcc_s", "libm.so"] {
        assert!(objects.iter().any(|object| object.path.contains(part)), "{part} is not loaded");
    }
    for object in &objects {
        let counts = check_object(object);
        println!("{:?}: {counts:#?}", object.path);
        assert!(counts.rows > 0, "{}", object.path);
        assert_eq!(counts.unknown, 0, "{}", object.path);
        assert_only_leaves(object, &counts);
        assert!(counts.interpreted * 50 <= counts.rows + 200, "{}", object.path);
    }
}

/// Whether the frame pointer was saved where the frame no longer reaches.
fn has_popped_fp<S: gimli::UnwindContextStorage<usize>>(row: &UnwindTableRow<usize, S>) -> bool {
    match (row.cfa(), row.register(X86_64::RBP)) {
        (
            CfaRule::RegisterAndOffset { register: X86_64::RSP, offset },
            Some(RegisterRule::Offset(saved)),
        ) => saved < -*offset,
        _ => false,
    }
}

/// Asserts that rows without a step belong to code that calls nothing, since the registers that
/// they need do not outlive a call: no such row is met by a walk that does not start in a signal
/// handler.
fn assert_only_leaves(object: &Object, counts: &Counts) {
    for register in counts.unsupported.keys() {
        let is_known = match register.as_str() {
            // The lazy binding of functions keeps its caller's stack pointer there.
            "rbx" => object.path.contains("ld-linux"),
            // The last five bytes of a function.
            "r15" => object.path.contains("libcrypto"),
            register => !["rbx", "rbp", "r12", "r13", "r14"].contains(&register),
        };
        assert!(is_known, "{}: {register}", object.path);
    }
}

fn check_object(object: &Object) -> Counts {
    let mut counts = Counts::default();
    let section = EhFrame::new(object.frames, LittleEndian);
    let bases = BaseAddresses::default()
        .set_eh_frame_hdr(Object::addr(object.header))
        .set_eh_frame(Object::addr(object.frames));
    let mut context = UnwindContext::new();
    let mut entries = section.entries(&bases);
    let mut ranges = vec![];
    while let Some(entry) = entries.next().unwrap() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(EhFrame::cie_from_offset).unwrap();
        if fde.len() == 0 {
            continue;
        }
        counts.functions += 1;
        let range = fde.initial_address()..fde.end_address();
        ranges.push(range.clone());
        counts.most_instruction_bytes = counts.most_instruction_bytes.max(fde.entry_len());
        if object.tables.function_range(range.start) != Some(range.clone()) {
            counts.hidden += 1;
            continue;
        }
        let encoding = fde.cie().encoding();
        let mut rows = fde.rows(&section, &bases, &mut context).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            if row.start_address() >= row.end_address() {
                continue;
            }
            counts.rows += 1;
            let call_addr = row.start_address();
            let rule = object.tables.rule(call_addr);
            assert_eq!(rule, object.tables.rule(row.end_address() - 1), "{call_addr:#x}");
            let is_signal = fde.is_signal_trampoline();
            assert_eq!(rule, expected_rule(row, is_signal), "{call_addr:#x} {row:?}");
            let is_popped = rule == Rule::INTERPRETED && has_popped_fp(row);
            counts.popped += u64::from(is_popped);
            counts.interpreted += u64::from(rule == Rule::INTERPRETED && !is_popped);
            counts.unknown += u64::from(rule == Rule::UNKNOWN);
            counts.outermost += u64::from(rule == Rule::OUTERMOST);
            if rule == Rule::OUTERMOST {
                continue;
            }
            let mut note = |kind: &str, expression: &Expression<Bytes>| {
                let text = format!("{kind} {}", text_of(*expression, encoding));
                *counts.expressions.entry(text).or_default() += 1;
            };
            let oracle = Oracle { section: &section, encoding, row, is_signal };
            for is_exact_pc in [false, true] {
                let registers = Registers {
                    pc: if is_exact_pc { call_addr } else { call_addr + 1 },
                    sp: 0x7FFF_1234_5600,
                    fp: 0x7FFF_1234_5700,
                    is_exact_pc,
                };
                let step = object.tables.step(registers, &mut |addr| Some(word_at(addr)));
                if step.is_none() && is_exact_pc {
                    let cfa = match row.cfa() {
                        CfaRule::RegisterAndOffset { register, .. } => {
                            X86_64::register_name(*register).unwrap().to_owned()
                        }
                        CfaRule::Expression(expression) => {
                            text_of(expression.get(&section).unwrap(), encoding)
                        }
                    };
                    *counts.unsupported.entry(cfa).or_default() += 1;
                }
                assert_eq!(step, oracle.step(registers, &mut note), "{call_addr:#x} {row:?}");
            }
        }
    }
    // No gap between functions is taken for a part of one.
    ranges.sort_by_key(|range| range.start);
    let mut end = 0;
    for range in ranges {
        if end != 0 && end < range.start {
            assert_eq!(object.tables.rule(end), Rule::UNKNOWN);
            assert_eq!(object.tables.rule(range.start - 1), Rule::UNKNOWN);
            assert_eq!(object.tables.function_range(end), None);
        }
        end = end.max(range.end);
    }
    counts
}

/// The kinds of operations of an expression, with the registers that they start from.
fn text_of(expression: Expression<Bytes>, encoding: gimli::Encoding) -> String {
    let mut operations = expression.operations(encoding);
    let mut texts = vec![];
    while let Some(operation) = operations.next().unwrap() {
        texts.push(match operation {
            Operation::RegisterOffset { register, .. } => {
                format!("{} + n", X86_64::register_name(register).unwrap())
            }
            other => {
                let text = format!("{other:?}");
                text.split(' ').next().unwrap().to_lowercase()
            }
        });
    }
    texts.join(", ")
}

/// A memory in which every word differs.
fn word_at(addr: u64) -> u64 {
    addr.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn expected_rule(row: &UnwindTableRow<usize>, is_signal: bool) -> Rule {
    let return_addr = row.register(X86_64::RA);
    let fp = row.register(X86_64::RBP);
    let saved_fp = match fp {
        Some(RegisterRule::Offset(offset)) => Some(offset),
        _ => None,
    };
    match (row.cfa(), return_addr) {
        (_, Some(RegisterRule::Undefined)) => Rule::OUTERMOST,
        (CfaRule::RegisterAndOffset { register, offset }, Some(RegisterRule::Offset(-8)))
            if !is_signal
                && row.register(X86_64::RSP).is_none()
                && (saved_fp.is_some() || matches!(fp, None | Some(RegisterRule::SameValue))) =>
        {
            let plain = |base| Rule::plain(base, *offset, saved_fp).unwrap_or(Rule::INTERPRETED);
            match *register {
                X86_64::RSP => plain(CfaBase::Sp),
                X86_64::RBP => plain(CfaBase::Fp),
                _ => Rule::INTERPRETED,
            }
        }
        _ => Rule::INTERPRETED,
    }
}

/// What gimli says of a row.
struct Oracle<'a> {
    section: &'a EhFrame<Bytes>,
    encoding: gimli::Encoding,
    row: &'a UnwindTableRow<usize>,
    is_signal: bool,
}

type Note<'a> = &'a mut dyn FnMut(&str, &Expression<Bytes>);

impl Oracle<'_> {
    fn step(&self, registers: Registers, note: Note<'_>) -> Option<Registers> {
        let cfa = match self.row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                register_of(registers, *register)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => {
                let expression = expression.get(self.section).unwrap();
                note("CFA:", &expression);
                self.evaluate(expression, None, registers)?
            }
        };
        let mut value = |register, default: Option<u64>| match self.row.register(register) {
            None | Some(RegisterRule::SameValue) => default,
            Some(RegisterRule::Offset(offset)) => Some(word_at(cfa.wrapping_add_signed(offset))),
            Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(offset)),
            Some(RegisterRule::Expression(expression)) => {
                let expression = expression.get(self.section).unwrap();
                note(&format!("{register:?} at:"), &expression);
                self.evaluate(expression, Some(cfa), registers).map(word_at)
            }
            Some(RegisterRule::ValExpression(expression)) => {
                let expression = expression.get(self.section).unwrap();
                note(&format!("{register:?} is:"), &expression);
                self.evaluate(expression, Some(cfa), registers)
            }
            Some(_) => None,
        };
        Some(Registers {
            pc: value(X86_64::RA, None)?,
            sp: value(X86_64::RSP, Some(cfa))?,
            fp: value(X86_64::RBP, Some(registers.fp)).unwrap_or(0),
            is_exact_pc: self.is_signal,
        })
    }

    fn evaluate(
        &self,
        expression: Expression<Bytes>,
        initial: Option<u64>,
        registers: Registers,
    ) -> Option<u64> {
        let mut evaluation = expression.evaluation(self.encoding);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut result = evaluation.evaluate().unwrap();
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                    evaluation.resume_with_memory(Value::Generic(word_at(address))).unwrap()
                }
                EvaluationResult::RequiresRegister { register, .. } => evaluation
                    .resume_with_register(Value::Generic(register_of(registers, register)?))
                    .unwrap(),
                other => panic!("{other:?}"),
            };
        }
        match evaluation.result()[0].location {
            Location::Address { address } => Some(address),
            ref other => panic!("{other:?}"),
        }
    }
}

fn register_of(registers: Registers, register: gimli::Register) -> Option<u64> {
    match register {
        X86_64::RSP => Some(registers.sp),
        X86_64::RBP => Some(registers.fp),
        X86_64::RA => Some(registers.pc),
        _ => None,
    }
}

#[test]
fn the_vdso_has_rules_for_its_functions() {
    // SAFETY: looks the value up among those that the kernel passed to the program.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    if vdso == 0 {
        println!("this kernel gives no vdso");
        return;
    }
    let objects = objects();
    let object = objects
        .iter()
        .find(|object| Object::addr(object.header).wrapping_sub(vdso) < 1 << 16)
        .expect("the vdso is listed");
    for name in [c"__vdso_clock_gettime", c"__vdso_gettimeofday", c"__vdso_getcpu"] {
        let function = vdso_symbol(vdso, name).expect("a function of the vdso");
        let range = object.tables.function_range(function).expect("an entry");
        assert!(range.contains(&function));
        for call_addr in range.clone() {
            let rule = object.tables.rule(call_addr);
            assert!(rule.is_plain(), "{name:?} at {call_addr:#x}: {rule:?}");
        }
        // The same through the loader, with and without `_dl_find_object`.
        assert_eq!(function_range(function), Some(range.clone()));
        memtrace_unwind::prepare();
        assert_eq!(function_range(function), Some(range));
    }
}

/// Looks a symbol up in the vdso's own table.
fn vdso_symbol(vdso: u64, name: &CStr) -> Option<u64> {
    // SAFETY: glibc knows the vdso by this name and keeps it loaded.
    let handle =
        unsafe { libc::dlopen(c"linux-vdso.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return None;
    }
    // SAFETY: a live handle and a terminated name.
    let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) } as u64;
    (symbol.wrapping_sub(vdso) < 1 << 16).then_some(symbol)
}
