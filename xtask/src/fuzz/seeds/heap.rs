//! Steps of programs that allocate.

/// A layout of the steps: a size of up to 512 bytes, no alignment.
const SMALL: [u8; 3] = [0x40, 0x06, 0];
/// The same of 16 KiB.
const MIDDLE: [u8; 3] = [0x2c, 0x40, 0];
/// Beyond all classes.
const LARGE: [u8; 3] = [0x3a, 0x40, 0];
/// In a big arena.
const BIG: [u8; 3] = [0x3f, 0x10, 0];

/// Steps for heaps.
pub(crate) fn heaps() -> Vec<(&'static str, Vec<u8>)> {
    let take = |layout: [u8; 3]| [&[0][..], &layout].concat();
    let take_many = |layout: [u8; 3], n: u8| [&[12][..], &layout, &[n]].concat();
    let give_back = |which: u8| vec![4, which, 0];
    let give_back_many = |n: u8| vec![13, 3, 0, n];
    let turn = |whose: u8| vec![15, whose];
    let check = || vec![11];
    let join = |steps: &[Vec<u8>]| [&[0][..], &steps.concat()].concat();
    vec![
        (
            "sizes",
            join(&[take(SMALL), take(MIDDLE), take(LARGE), take(BIG), check(), give_back(1)]),
        ),
        (
            "pools",
            join(&[take_many(MIDDLE, 60), give_back_many(30), take_many(SMALL, 255), check()]),
        ),
        ("remote", {
            let own = take_many(SMALL, 200);
            join(&[own, turn(30), give_back_many(150), check(), turn(0), take_many(SMALL, 100)])
        }),
        ("ended", {
            let by_another = take_many(MIDDLE, 20);
            join(&[turn(63), by_another, turn(0), give_back_many(20), take(MIDDLE), check()])
        }),
        ("misuse", {
            let misuses = (0..6).map(|how| vec![9, 0, 0, how]).collect::<Vec<_>>().concat();
            join(&[take(SMALL), take(LARGE), give_back(0), misuses, vec![10], check()])
        }),
        ("resized", {
            let resize = |size: [u8; 3]| vec![7, 0, 0, size[0], size[1]];
            join(&[take(SMALL), resize(MIDDLE), resize(LARGE), resize(BIG), resize(SMALL), check()])
        }),
    ]
}
