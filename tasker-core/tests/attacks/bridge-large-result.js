// ends: error LimitExceeded payload
return 'x'.repeat(5e6);
