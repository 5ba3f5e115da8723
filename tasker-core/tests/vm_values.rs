//! Values that leave a VM and come in are what `JSON.stringify` and `JSON.parse` make of them.

mod vm_support;

use tasker_core::adaptor::Json;
use tasker_core::vm::TurnEnd;
use vm_support::run;

#[test]
fn numbers_are_written_as_javascript_writes_them() {
    let turn = run(
        "module.exports = () => {
            const numbers = [5e-324, 1.7976931348623157e308, 1e-7, 9.999999999999999e-7, 1e-6, 1.0000000000000002e-6, 0.1 + 0.2, 1 / 3, 123456789012345680000,
              999999999999999900000, 1e21, 1e15, 1e15 + 0.5, 2 ** 53, 2 ** 53 + 2, 4503599627370495.5, 2.2250738585072014e-308, 5e-7, 0.000001234, 1.5, -0.5];
            const bits = new Uint32Array(2), view = new Float64Array(bits.buffer);
            for (let i = 0; i < 20000; i++) {
                crypto.getRandomValues(bits);
                const exponent = 1000 + Math.floor(Math.random() * 100);
                const near = (bits[1] & 0x800fffff) | (exponent << 20);
                if (i % 3 === 0) bits[1] = near;
                numbers.push(i % 3 === 1 ? Math.floor(Math.random() * 1e7) / 10 ** (i % 12) : view[0]);
            }
            for (let e = -330; e < 310; e++) numbers.push(Number(`1e${e}`), -Number(`9.5e${e}`), 2 ** e);
            return numbers.filter(Number.isFinite).map((n) => [n, Object.is(n, -0) ? '0' : String(n)]);
        };",
        "null",
    );
    let TurnEnd::Completed(Some(json)) = turn.end else {
        panic!("{:?}", turn.end)
    };
    let pairs: Vec<(Json, String)> = json.to().unwrap();
    assert!(pairs.len() > 20_000);
    for (written, text) in pairs {
        assert_eq!(written.text(), text);
    }
}
