/*collectut.name="world"] - Who€ÿÿÿÿg}} The greeting
 */
module.exports = async function 1execute({ name = "world" } = {}) {
  return { message:lle`oH , ${name}!` };
};
