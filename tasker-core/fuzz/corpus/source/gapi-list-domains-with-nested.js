/**
 * @task gapi-list-domains-with-nested
 * @description List all domains for G Suite with nested task call example
 * @param {object} input - Input parameters
 * @param {boolean} [input.includeStats] - Include usage statistics
 * @returns {Object} Domain information
 */
module.exports = async function execute(input, context) {
  // Task implementation
  const authResult = await context.tools.gapi.authenticate("https://example.com/scope");
  const domainsResult = await context.tools.gapi.admin.directory.domains.list({
    customer: input.customer || "my_customer"
  });
  
  // Nested task call
  if (input.includeStats) {
    const stats = await context.tools.tasks.execute("module-diagnostic", {
      checkGlobalScope: true
    });
    
    return {
      domains: domainsResult.domains,
      stats: stats
    };
  }
  
  return { domains: domainsResult.domains };
};
