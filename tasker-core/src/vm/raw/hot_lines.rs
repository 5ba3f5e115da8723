//! Which cache lines of an image turns touch, so that they can be brought into the caches while another VM turns.
//!
//! A turn that delivers an answer and makes a call touches a thirtieth of an image, here and there. Where many VMs turn one after the
//! other, each has left the caches when its next turn comes, and waiting for these lines one by one is half of the turn.
//!
//! The lists below are made by `.config/hot_lines.sh`, which traces turns under valgrind. Each is for images of one layout: after a change
//! of the prelude or of QuickJS no list fits, nothing is prefetched, and a test says so.

use super::heap::HEADER;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Those of the images of a layout.
struct HotLines {
    layout: u64,
    lines: &'static [u16],
}

/// The lines of images of this layout.
pub(super) fn of(layout: u64) -> &'static [u16] {
    let known = ALL.iter().find(|known| known.layout == layout);
    known.map_or(&[], |known| known.lines)
}

/// What tells images of one layout from those of another one: how long their blocks are, one after the other.
///
/// Not where their pointers lie: tables that are ordered by addresses have them elsewhere in each process.
pub(super) fn layout(words: &[u64]) -> u64 {
    let (mut hash, mut at) = (0, 0);
    // The size is the last word of a block's header.
    while let Some(size) = words.get(at + HEADER / 8 - 1) {
        // FNV-1a, by words.
        hash = (hash ^ size).wrapping_mul(0x0100_0000_01b3);
        at += usize::try_from(size.div_ceil(8).max(1)).unwrap_or(words.len());
    }
    hash
}

// Made by .config/hot_lines.sh from here on.
#[rustfmt::skip]
static ALL: [HotLines; 3] = [
    // Nothing
    HotLines {
        layout: 0xd7fc_e600_7945_678b,
        lines: &[
            1, 9, 10, 11, 12, 17, 18, 19, 20, 21, 23, 92, 331, 357, 377, 482, 483, 491, 514, 515,
            516, 517, 532, 533, 534, 535, 541, 542, 555, 560, 561, 562, 563, 855, 856, 857, 858, 859, 860, 863,
            864, 866, 867, 868, 869, 870, 871, 872, 937, 938, 946, 947, 1057, 1058, 1200, 1201, 1202, 1332, 1333, 1449,
            1452, 1453, 1562, 1563, 1567, 1569, 1598, 1599, 1600, 1747, 1792, 1793, 2015, 2050, 2051, 2062, 2063, 2064, 2065, 2128,
            2129, 2169, 2229, 2230, 2231, 2410, 2434, 2501, 2503, 2505, 2523, 2562, 2564, 2565, 2566, 2623, 2636, 2703, 2721, 2722,
            2780, 2800, 2802, 2803, 2954, 2955, 3264, 3323, 3324, 3325, 3326, 3327, 3432, 3433, 3477, 3483, 3484, 3491, 3492, 3493,
            3494, 3495, 3496, 3497, 3498,
        ],
    },
    // Usual
    HotLines {
        layout: 0x9c55_f169_7e07_a213,
        lines: &[
            1, 9, 10, 11, 12, 17, 18, 19, 20, 21, 23, 92, 357, 377, 482, 483, 491, 514, 515, 516,
            517, 532, 533, 534, 535, 541, 542, 555, 560, 561, 562, 563, 889, 890, 891, 892, 893, 897, 898, 899,
            900, 901, 902, 903, 904, 969, 970, 978, 979, 1089, 1090, 1239, 1240, 1241, 1373, 1374, 1375, 1486, 1489, 1490,
            1609, 1610, 1614, 1616, 1645, 1646, 1647, 1855, 1856, 2078, 2129, 2130, 2131, 2132, 2133, 2134, 2135, 2191, 2192, 2232,
            2251, 2252, 2266, 2267, 2363, 2473, 2474, 2497, 2586, 2597, 2601, 2625, 2627, 2628, 2629, 2688, 2705, 2784, 2807, 2808,
            2867, 2889, 2890, 2892, 3281, 3282, 3415, 3522, 3592, 3593, 3672, 3673, 3684, 3708, 3709, 3723, 3731, 3732, 3733, 3734,
            3735, 3736,
        ],
    },
    // Date
    HotLines {
        layout: 0x3b7d_00af_0804_0d58,
        lines: &[
            1, 9, 10, 11, 12, 17, 18, 19, 20, 21, 23, 92, 361, 381, 486, 487, 495, 518, 519, 520,
            521, 536, 537, 538, 539, 544, 545, 546, 559, 564, 565, 566, 922, 1004, 1005, 1006, 1014, 1124, 1125, 1274,
            1275, 1276, 1416, 1417, 1418, 1541, 1542, 1544, 1545, 1651, 1652, 1656, 1658, 1700, 1701, 1702, 1703, 1899, 1900, 2129,
            2179, 2181, 2182, 2184, 2185, 2186, 2187, 2243, 2244, 2414, 2415, 2445, 2446, 2525, 2549, 2638, 2648, 2660, 2661, 2677,
            2681, 2682, 2683, 2697, 2698, 2725, 2726, 2762, 2782, 2872, 2899, 2900, 2901, 2975, 2999, 3007, 3402, 3403, 3539, 3638,
            3639, 3715, 3716, 3764, 3765, 3799, 3800, 3801, 3802, 3807, 3808, 3816, 3817, 3822, 3823, 3824, 3825, 3826, 3958, 3959,
            3960, 3986, 4012, 4013, 4014, 4015, 4016, 4017, 4022, 4041, 4046, 4047, 4052, 4053, 4054, 4055, 4056, 4057, 4072, 4095,
            4096, 4144, 4176, 4177, 4178, 4179, 4180, 4184, 4186, 4187, 4188, 4189, 4190, 4191, 4192, 4193, 4196, 4197, 4198, 4199,
            4223, 4224, 4226, 4227, 4228,
        ],
    },
];
