/**
 * @task comprehensive-gmail-search-all
 * @description Searches the mail of every user of every domain: all pages, users and messages in parallel
 * @param {object} input
 * @param {string} [input.gmailSearchQuery=""] - As in Gmail's search box
 * @param {number} [input.pageSize=100] - Users or messages in one answer, 1 to 500
 * @param {number} [input.samplesPerUser=5] - Messages of a user whose headers are read
 * @param {number} [input.pauseMs=0] - Rest between two domains, to stay within the quota of the directory
 * @returns {{summary: object, domainResults: object[], sampleMessages: object[], statistics: object, executionInfo: object}} What was found
 */
module.exports = async function execute(
  { gmailSearchQuery = "", pageSize = 100, samplesPerUser = 5, pauseMs = 0 },
  { tools },
) {
  const { directory } = tools.gapi.admin;
  const { messages } = tools.gapi.gmail.users;
  const maxResults = Math.min(Math.max(pageSize, 1), 500);
  let calls = 0;

  /** All items of a list, page after page. */
  async function allPages(member, listPage) {
    const items = [];
    let pageToken;
    do {
      calls += 1;
      const page = await listPage(pageToken);
      items.push(...(page[member] ?? []));
      pageToken = page.nextPageToken;
    } while (pageToken);
    return items;
  }

  async function readMessage(userId, id) {
    calls += 1;
    const message = await messages.get({
      userId,
      id,
      format: "metadata",
      metadataHeaders: ["Subject", "From", "Date"],
    });
    const header = (name) => message.payload.headers.find((one) => one.name === name)?.value ?? "";
    return { id, snippet: message.snippet, subject: header("Subject"), from: header("From"), date: header("Date") };
  }

  async function searchUser(user) {
    const userId = user.primaryEmail;
    const found = await allPages("messages", (pageToken) =>
      messages.list({ userId, q: gmailSearchQuery, maxResults, pageToken }),
    );
    const samples = await Promise.all(found.slice(0, samplesPerUser).map(({ id }) => readMessage(userId, id)));
    return { email: userId, name: user.name.fullName, messageCount: found.length, messages: samples };
  }

  calls += 1;
  const { domains = [] } = await directory.domains.list({ customer: "my_customer" });
  const domainResults = [];
  for (const [index, { domainName }] of domains.entries()) {
    if (index > 0 && pauseMs > 0) {
      await tools.sleep(pauseMs);
    }
    const everyone = await allPages("users", (pageToken) =>
      directory.users.list({ domain: domainName, maxResults, orderBy: "email", pageToken }),
    );
    const users = await Promise.all(everyone.filter((user) => !user.suspended).map(searchUser));
    const totalMessages = users.reduce((sum, user) => sum + user.messageCount, 0);
    tools.log("info", `${domainName}: ${totalMessages} messages of ${users.length} users`);
    domainResults.push({ domain: domainName, users, totalMessages, userCount: users.length });
  }

  const users = domainResults.flatMap((domain) => domain.users);
  const totalMessagesFound = users.reduce((sum, user) => sum + user.messageCount, 0);
  return {
    summary: {
      totalDomains: domains.length,
      totalUsers: users.length,
      totalMessagesFound,
      searchQuery: gmailSearchQuery,
    },
    domainResults,
    sampleMessages: users.flatMap((user) => user.messages).slice(0, 20),
    statistics: {
      averageEmailsPerUser: users.length === 0 ? 0 : totalMessagesFound / users.length,
      domainsWithUsers: domainResults.filter((domain) => domain.userCount > 0).length,
      usersWithEmails: users.filter((user) => user.messageCount > 0).length,
    },
    executionInfo: {
      completedAt: new Date().toISOString(),
      totalApiCalls: calls,
      description: "every page of every list, users and messages of a domain in parallel",
    },
  };
};
