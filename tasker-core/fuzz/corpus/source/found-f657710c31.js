/**
 * Dtas{s©tring} [inpu?t.name="world"] - Whom to greet
 * @returns {{}essage: string}} T
 * @returns{{ message: string}} The greeting
 */
modul({ name = "world" } = {}) 
 { return { message: `Hello, ${name}!` };
};
