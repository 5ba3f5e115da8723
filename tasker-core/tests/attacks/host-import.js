// ends: error Error
return (await import('/etc/passwd')).default;
